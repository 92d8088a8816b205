# Fails when a program would load LibTorch: a room that does without must be testable without.
#
# usage: cmake -DPROGRAM=<file> -DLDD=<ldd> -P no_torch.cmake
execute_process(COMMAND ${LDD} ${PROGRAM} OUTPUT_VARIABLE libraries ERROR_VARIABLE problem RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${LDD} ${PROGRAM}: ${problem}")
endif()
string(REGEX MATCHALL "lib(torch|c10)[a-z_0-9]*\\.so" torch "${libraries}")
if(torch)
  list(REMOVE_DUPLICATES torch)
  list(JOIN torch ", " names)
  message(FATAL_ERROR "${PROGRAM} loads ${names}")
endif()
message(STATUS "${PROGRAM} loads no LibTorch")
