# find_package only: configuring never downloads. cmake/bootstrap.sh installs what is looked for here.
find_package(Threads REQUIRED)
find_package(absl REQUIRED CONFIG)
find_package(RapidJSON REQUIRED)
find_package(LibTorch REQUIRED MODULE)
if(AUTOSCHEME_BUILD_TESTS)
  find_package(Catch2 2.13 REQUIRED CONFIG)
endif()
if(AUTOSCHEME_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED CONFIG)
endif()

if(NOT TARGET autoscheme_rapidjson)
  add_library(autoscheme_rapidjson INTERFACE)
  target_include_directories(autoscheme_rapidjson SYSTEM INTERFACE
    ${RAPIDJSON_INCLUDE_DIRS} ${RapidJSON_INCLUDE_DIRS} ${RapidJSON_INCLUDE_DIR})
endif()
