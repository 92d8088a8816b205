# Fails unless the plugin exports its one function and needs CUDA's run time and cuBLAS, but neither LibTorch nor the
# driver, which only a machine with a device has.
#
# usage: cmake -DPLUGIN=libautoscheme_cuda.so -DNM=nm -DREADELF=readelf -P plugin.cmake
execute_process(COMMAND ${NM} -D --defined-only --format=posix ${PLUGIN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE " [^\n]*\n" ";" exported "${text}")
if(NOT exported STREQUAL "autoscheme_device_api;")
  message(SEND_ERROR "${PLUGIN} exports ${exported}")
endif()

execute_process(COMMAND ${READELF} -d -W ${PLUGIN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "NEEDED[^\n]*" needed "${text}")
if(NOT needed MATCHES "libcudart\\.so\\.13" OR NOT needed MATCHES "libcublas\\.so\\.13")
  message(SEND_ERROR "${PLUGIN} lacks CUDA's libraries: ${needed}")
endif()
if(needed MATCHES "libcuda\\.so|libtorch|libc10")
  message(SEND_ERROR "${PLUGIN} is linked to what it must do without: ${needed}")
endif()
message(STATUS "${PLUGIN}: ${needed}")
