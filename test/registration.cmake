# Fails when a test source is named in no CMakeLists.txt of its folder: a test that is not built is not a test.
#
# usage: cmake -DTEST_DIR=<source>/test -P registration.cmake
file(GLOB_RECURSE sources RELATIVE ${TEST_DIR} ${TEST_DIR}/*.cc ${TEST_DIR}/*.c)
list(FILTER sources EXCLUDE REGEX "^(consumer|support)/")  # projects of their own; code that tests share

set(unregistered "")
foreach(source ${sources})
  get_filename_component(folder ${source} DIRECTORY)
  get_filename_component(name ${source} NAME)
  set(lines "")
  if(EXISTS ${TEST_DIR}/${folder}/CMakeLists.txt)
    file(STRINGS ${TEST_DIR}/${folder}/CMakeLists.txt lines)
  endif()
  string(REPLACE "." "\\." pattern ${name})
  set(found FALSE)
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "#.*" "" line "${line}")
    if(line MATCHES "(^|[ (\t/])${pattern}($|[ )\t])")
      set(found TRUE)
    endif()
  endforeach()
  if(NOT found)
    list(APPEND unregistered ${source})
  endif()
endforeach()

list(LENGTH sources count)
if(unregistered)
  list(JOIN unregistered ", " names)
  message(FATAL_ERROR "not in the CMakeLists.txt of its folder: ${names}")
endif()
message(STATUS "${count} test sources, all registered")
