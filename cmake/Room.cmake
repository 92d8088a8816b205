# autoscheme_room(<name> SOURCES <file>... [ROOMS <room>...] [LIBS <target>...] [TORCH [PLAIN <file>...]])
#
# One room of lib/ = one OBJECT library, autoscheme_<name>. Its headers are included as "<name>/x.h" through an include
# folder of its own (<build>/rooms/<name>/<name> -> lib/<name>), and a room sees the folders of the rooms it lists and of
# what those list: an include against the direction of docs/impl.md does not compile. Only TORCH rooms see LibTorch.
# PLAIN files of such a room do without it and without the TORCH rooms below: they are a room of their own, <name>_plain, in
# the same folder, which rooms without LibTorch may list.
function(autoscheme_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "SOURCES;PLAIN;ROOMS;LIBS" ${ARGN})
  set(folder ${PROJECT_BINARY_DIR}/rooms/${name})
  file(MAKE_DIRECTORY ${folder})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/lib/${name} ${folder}/${name} SYMBOLIC)

  add_library(autoscheme_${name}_headers INTERFACE)
  target_include_directories(autoscheme_${name}_headers INTERFACE ${folder} ${PROJECT_SOURCE_DIR}/include)
  foreach(room ${ROOM_ROOMS})
    target_link_libraries(autoscheme_${name}_headers INTERFACE autoscheme_${room}_headers)
  endforeach()
  target_link_libraries(autoscheme_${name}_headers INTERFACE
    absl::status absl::statusor absl::strings absl::span absl::flat_hash_map absl::time ${ROOM_LIBS})
  if(ROOM_TORCH)
    target_link_libraries(autoscheme_${name}_headers INTERFACE LibTorch::CPU)
  endif()

  set(below "")
  if(ROOM_PLAIN)
    autoscheme_plain_part(${name} "${ROOM_PLAIN}" "${ROOM_ROOMS}")
    list(APPEND below autoscheme_${name}_plain)
  endif()
  set_property(GLOBAL PROPERTY AUTOSCHEME_TORCH_${name} ${ROOM_TORCH})

  add_library(autoscheme_${name} OBJECT ${ROOM_SOURCES})
  target_link_libraries(autoscheme_${name} PUBLIC autoscheme_${name}_headers PRIVATE autoscheme_settings)
  if(ROOM_TORCH)
    autoscheme_use_torch_pch(autoscheme_${name})
  endif()
  set_property(GLOBAL APPEND PROPERTY AUTOSCHEME_ROOMS autoscheme_${name})
  # A program that runs a room's code needs the objects of all rooms below it.
  list(APPEND below autoscheme_${name})
  foreach(room ${ROOM_ROOMS})
    get_property(objects GLOBAL PROPERTY AUTOSCHEME_OBJECTS_${room})
    list(APPEND below ${objects})
  endforeach()
  list(REMOVE_DUPLICATES below)
  set_property(GLOBAL PROPERTY AUTOSCHEME_OBJECTS_${name} ${below})
endfunction()

function(autoscheme_plain_part name sources rooms)
  set(plain autoscheme_${name}_plain)
  add_library(${plain}_headers INTERFACE)
  target_include_directories(${plain}_headers INTERFACE ${PROJECT_BINARY_DIR}/rooms/${name} ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(${plain}_headers INTERFACE absl::status absl::statusor absl::strings absl::span)
  set(below ${plain})
  foreach(room ${rooms})
    get_property(torch GLOBAL PROPERTY AUTOSCHEME_TORCH_${room})
    if(NOT torch)
      target_link_libraries(${plain}_headers INTERFACE autoscheme_${room}_headers)
      get_property(objects GLOBAL PROPERTY AUTOSCHEME_OBJECTS_${room})
      list(APPEND below ${objects})
    endif()
  endforeach()
  add_library(${plain} OBJECT ${sources})
  target_link_libraries(${plain} PUBLIC ${plain}_headers PRIVATE autoscheme_settings)
  set_property(GLOBAL APPEND PROPERTY AUTOSCHEME_ROOMS ${plain})
  set_property(GLOBAL PROPERTY AUTOSCHEME_OBJECTS_${name}_plain ${below})
  set_property(GLOBAL PROPERTY AUTOSCHEME_TORCH_${name}_plain FALSE)
endfunction()

# Links a program with the code of rooms and of all rooms below them.
function(autoscheme_link_rooms target)
  set(all "")
  foreach(room ${ARGN})
    get_property(objects GLOBAL PROPERTY AUTOSCHEME_OBJECTS_${room})
    list(APPEND all ${objects})
  endforeach()
  list(REMOVE_DUPLICATES all)
  target_link_libraries(${target} PRIVATE ${all})
endfunction()

# NAME_baseline.cc and, on x86-64, NAME_avx2.cc and NAME_avx512.cc of a room: loops that are compiled once for every instruction
# set, of which NAME.cc chooses at run time. Results are the same on every machine: no fused multiply-add. Without the
# precompiled header: it was compiled for the baseline.
function(autoscheme_kernels room name)
  set(sources ${name}_baseline.cc)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
    list(APPEND sources ${name}_avx2.cc ${name}_avx512.cc)
    set_source_files_properties(${name}.cc PROPERTIES COMPILE_DEFINITIONS AUTOSCHEME_X86_KERNELS)
    # Where no vector instructions are, -O3 only costs: two thirds of the time that this takes to compile.
    set_property(SOURCE ${name}_baseline.cc APPEND PROPERTY COMPILE_OPTIONS $<$<CONFIG:Release>:-O2>)
    set_property(SOURCE ${name}_avx2.cc APPEND PROPERTY COMPILE_OPTIONS -mavx2)
    set_property(SOURCE ${name}_avx512.cc APPEND PROPERTY COMPILE_OPTIONS -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  endif()
  target_sources(autoscheme_${room} PRIVATE ${sources})
  set_property(SOURCE ${sources} PROPERTY SKIP_PRECOMPILE_HEADERS ON)
  set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # GCC 12 takes the undefined upper halves in its own immintrin.h for a mistake.
    set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS "-Wno-uninitialized;-Wno-maybe-uninitialized")
  endif()
endfunction()

# A translation unit with LibTorch's headers takes about 13 s; one precompiled header serves all targets that need them.
function(autoscheme_use_torch_pch target)
  if(NOT TARGET autoscheme_torch_pch)
    file(WRITE ${PROJECT_BINARY_DIR}/torch_pch.cc "")
    add_library(autoscheme_torch_pch OBJECT ${PROJECT_BINARY_DIR}/torch_pch.cc)
    target_link_libraries(autoscheme_torch_pch PRIVATE LibTorch::CPU autoscheme_settings)
    target_precompile_headers(autoscheme_torch_pch PRIVATE
      <ATen/ATen.h> <ATen/Parallel.h> <torch/csrc/autograd/autograd.h> <torch/csrc/autograd/custom_function.h>
      <torch/csrc/autograd/grad_mode.h> <torch/csrc/autograd/variable.h> <string> <vector> <memory>)
  endif()
  # The header is compiled with -fPIC; a program that was compiled with -fPIE could not use it.
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM autoscheme_torch_pch)
endfunction()
