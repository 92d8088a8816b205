# Language level, warnings, visibility, sanitizers, output places. Nothing here looks for a package.
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 99)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
  set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
  find_program(AUTOSCHEME_CCACHE ccache)
  if(AUTOSCHEME_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER ${AUTOSCHEME_CCACHE})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${AUTOSCHEME_CCACHE})
  endif()
endif()

# Every target of ours links this one: warnings are errors in our code and in nobody else's.
add_library(autoscheme_settings INTERFACE)
target_compile_options(autoscheme_settings INTERFACE -Wall -Wextra -Werror $<$<COMPILE_LANGUAGE:CXX>:-Wno-comment>)
# A private RapidJSON namespace, so that a host that carries another version does not clash with ours.
target_compile_definitions(autoscheme_settings INTERFACE
  RAPIDJSON_NAMESPACE=autoscheme::rapidjson RAPIDJSON_HAS_STDSTRING=1)
if(AUTOSCHEME_SANITIZE)
  target_compile_options(autoscheme_settings INTERFACE
    -fsanitize=${AUTOSCHEME_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(autoscheme_settings INTERFACE -fsanitize=${AUTOSCHEME_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # GCC 12 sees uninitialized members in instrumented libstdc++ code (std::regex, inside Catch2) that are none.
    target_compile_options(autoscheme_settings INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
