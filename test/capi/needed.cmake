# Fails when a library or program is linked to more than LibTorch's CPU half, Abseil and the system's own: whoever has no
# CUDA device pays nothing for those who have.
#
# usage: cmake -DFILES=<file>;<file> -DREADELF=readelf -P needed.cmake
set(known "lib(autoscheme|torch|torch_cpu|c10|gomp|omp|absl_[a-z_0-9]+|stdc[+][+]|m|gcc_s|c|dl|pthread|rt)[.]so[.0-9]*|ld-linux[-a-z0-9_]*[.]so[.0-9]*")
foreach(file IN LISTS FILES)
  execute_process(COMMAND ${READELF} -d -W ${file} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "\\(NEEDED\\)[^\n]*" entries "${text}")
  if(NOT entries)
    message(SEND_ERROR "${file} needs nothing: is it what it should be?")
  endif()
  foreach(entry IN LISTS entries)
    string(REGEX REPLACE ".*[^A-Za-z0-9_.+-]([A-Za-z0-9_.+-]+).?$" "\\1" name "${entry}")
    if(NOT name MATCHES "^(${known})$")
      message(SEND_ERROR "${file} needs ${name}")
    endif()
  endforeach()
endforeach()
