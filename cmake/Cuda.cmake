# CMake's CUDA language, the toolkit, and how our code for it is compiled.
include(${CMAKE_CURRENT_LIST_DIR}/../lib/cuda/kernels.cmake)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  # The last one as PTX too, which the driver compiles for devices that are newer still.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 90-real 100-real 120 CACHE STRING "Devices that the plugin has code for")
endif()
if(AUTOSCHEME_CCACHE AND PROJECT_IS_TOP_LEVEL)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${AUTOSCHEME_CCACHE})
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)
find_package(CUDAToolkit 13 REQUIRED)

add_library(autoscheme_cuda_settings INTERFACE)
# nvcc takes constants that only a launch uses for unused (177).
set(cuda_flags -Xcompiler=-Wall,-Wextra,-ffp-contract=off -Werror=all-warnings -diag-suppress=177 ${AUTOSCHEME_CUDA_KERNEL_OPTIONS})
target_compile_options(autoscheme_cuda_settings INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")
