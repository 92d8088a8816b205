# Finds LibTorch for CPU use: a PyPI wheel, an unpacked libtorch archive or any folder that holds include/ and lib/.
#
# Why not find_package(Torch): the config file in the CUDA wheels insists on a CUDA toolkit, and we link the CPU half only.
# Looked at, in this order: LIBTORCH_ROOT (variable, then environment), Torch_DIR (.../share/cmake/Torch), the deps
# folder that cmake/bootstrap.sh fills (AUTOSCHEME_DEPS, default <source>/.deps).
#
# Defines the imported target LibTorch::CPU, and LibTorch_VERSION.
set(_roots ${LIBTORCH_ROOT} $ENV{LIBTORCH_ROOT})
foreach(_dir ${Torch_DIR} $ENV{Torch_DIR})
  get_filename_component(_root "${_dir}/../../.." ABSOLUTE)
  list(APPEND _roots ${_root})
endforeach()
if(DEFINED ENV{AUTOSCHEME_DEPS})
  list(APPEND _roots $ENV{AUTOSCHEME_DEPS}/libtorch/torch)
endif()
list(APPEND _roots ${PROJECT_SOURCE_DIR}/.deps/libtorch/torch)

find_path(LibTorch_INCLUDE_DIR torch/csrc/autograd/function.h
  PATHS ${_roots} PATH_SUFFIXES include torch/include NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS ${_roots} PATH_SUFFIXES lib torch/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 PATHS ${_roots} PATH_SUFFIXES lib torch/lib NO_DEFAULT_PATH)

if(LibTorch_INCLUDE_DIR AND EXISTS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
  set(_version_file ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
else()
  set(_version_file ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h)
endif()
if(EXISTS ${_version_file})
  file(STRINGS ${_version_file} _lines REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" LibTorch_VERSION "${_lines}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "run cmake/bootstrap.sh, or set LIBTORCH_ROOT to a folder that holds include/ and lib/libtorch_cpu.so")

if(LibTorch_FOUND AND LibTorch_VERSION VERSION_LESS 2.4)
  message(FATAL_ERROR "LibTorch ${LibTorch_VERSION} in ${LibTorch_INCLUDE_DIR} is older than 2.4, the least that autoscheme supports")
endif()

if(LibTorch_FOUND AND NOT TARGET LibTorch::CPU)
  add_library(LibTorch::C10 SHARED IMPORTED)
  set_target_properties(LibTorch::C10 PROPERTIES IMPORTED_LOCATION ${LibTorch_C10_LIBRARY} IMPORTED_NO_SONAME ON)
  add_library(LibTorch::CPU SHARED IMPORTED)
  set_target_properties(LibTorch::CPU PROPERTIES
    IMPORTED_LOCATION ${LibTorch_CPU_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES "${LibTorch_INCLUDE_DIR};${LibTorch_INCLUDE_DIR}/torch/csrc/api/include"
    INTERFACE_COMPILE_DEFINITIONS _GLIBCXX_USE_CXX11_ABI=1
    INTERFACE_LINK_LIBRARIES LibTorch::C10)
  # The wheel's libtorch_cpu.so needs CUDA runtime libraries that it finds by its own rpath; the linker must look there too.
  get_filename_component(_lib ${LibTorch_CPU_LIBRARY} DIRECTORY)
  file(GLOB _nvidia LIST_DIRECTORIES true ${_lib}/../../nvidia/*/lib)
  foreach(_dir ${_lib} ${_nvidia})
    target_link_options(LibTorch::CPU INTERFACE -Wl,-rpath-link,${_dir})
  endforeach()
endif()

# at::parallel_for is a template: it runs serially in a file that was compiled without OpenMP, and in a second thread pool
# where that file's OpenMP library is not LibTorch's. So all users of LibTorch compile with OpenMP and link the library
# that LibTorch itself brings.
if(LibTorch_FOUND AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT TARGET LibTorch::OpenMP)
  add_library(LibTorch::OpenMP INTERFACE IMPORTED)
  get_filename_component(_lib ${LibTorch_CPU_LIBRARY} DIRECTORY)
  file(GLOB _openmp ${_lib}/libgomp*.so*)
  if(NOT _openmp)
    find_package(OpenMP QUIET COMPONENTS CXX)
    set(_openmp ${OpenMP_CXX_LIBRARIES})
  endif()
  if(_openmp)
    list(GET _openmp 0 _openmp)
    set_target_properties(LibTorch::OpenMP PROPERTIES
      INTERFACE_COMPILE_OPTIONS $<$<COMPILE_LANGUAGE:CXX>:-fopenmp> INTERFACE_LINK_LIBRARIES ${_openmp})
    set_property(TARGET LibTorch::CPU APPEND PROPERTY INTERFACE_LINK_LIBRARIES LibTorch::OpenMP)
  endif()
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
