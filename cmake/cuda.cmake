# Decides CONVOLT_WITH_CUDA and, where it is on, enables the CUDA language and defines convolt_configure_cuda().
#
# What a CUDA build needs: nvcc 12.8 or newer and the headers of cuDNN 9, cuBLASLt, nvJPEG and cudnn-frontend. None of
# NVIDIA's libraries but the static runtime is linked: cuDNN, cuBLASLt, nvJPEG and the driver are loaded when they are
# first used.
set(CONVOLT_WITH_CUDA OFF)
set(CONVOLT_DEPS ${PROJECT_SOURCE_DIR}/.deps CACHE PATH "Where tools/fetch_cuda_deps.sh put its things")
set(CONVOLT_CUDA_MISSING "")

if(NOT CONVOLT_CUDA STREQUAL "OFF")
  # A fetched toolkit comes first: it was asked for.
  find_program(CONVOLT_NVCC nvcc HINTS ${CONVOLT_DEPS}/cuda/nvidia/cu13 ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(CONVOLT_NVCC)
    get_filename_component(CONVOLT_CUDA_ROOT ${CONVOLT_NVCC} REALPATH)
    get_filename_component(CONVOLT_CUDA_ROOT ${CONVOLT_CUDA_ROOT}/../.. ABSOLUTE)
    execute_process(COMMAND ${CONVOLT_NVCC} --version OUTPUT_VARIABLE CONVOLT_NVCC_TEXT ERROR_QUIET)
    string(REGEX MATCH "release ([0-9.]+)" _ "${CONVOLT_NVCC_TEXT}")
    if(CMAKE_MATCH_1 VERSION_LESS 12.8)
      list(APPEND CONVOLT_CUDA_MISSING "nvcc 12.8 or newer (${CONVOLT_NVCC} is ${CMAKE_MATCH_1})")
    endif()
  else()
    list(APPEND CONVOLT_CUDA_MISSING "nvcc")
  endif()
  set(CONVOLT_CUDA_INCLUDE_HINTS ${CONVOLT_CUDA_ROOT}/include ${CONVOLT_DEPS}/cuda/nvidia/cu13/include)
  find_path(CONVOLT_CUDNN_FRONTEND cudnn_frontend.h HINTS ${CONVOLT_DEPS}/cudnn_frontend/include)
  find_path(CONVOLT_CUDNN_INCLUDE cudnn.h HINTS ${CONVOLT_CUDA_INCLUDE_HINTS} ${CONVOLT_DEPS}/cuda/nvidia/cudnn/include)
  find_path(CONVOLT_CUBLASLT_INCLUDE cublasLt.h HINTS ${CONVOLT_CUDA_INCLUDE_HINTS})
  find_path(CONVOLT_NVJPEG_INCLUDE nvjpeg.h HINTS ${CONVOLT_CUDA_INCLUDE_HINTS} ${CONVOLT_DEPS}/nvjpeg/cu13/include)
  find_path(CONVOLT_NVRTC_INCLUDE nvrtc.h HINTS ${CONVOLT_CUDA_INCLUDE_HINTS}) # the frontend's headers include it
  find_path(CONVOLT_CUDART_INCLUDE cuda_runtime.h HINTS ${CONVOLT_CUDA_INCLUDE_HINTS})
  find_library(CONVOLT_CUDART cudart_static HINTS ${CONVOLT_CUDA_ROOT} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
  foreach(piece CUDNN_FRONTEND:cudnn_frontend.h CUDNN_INCLUDE:cudnn.h CUBLASLT_INCLUDE:cublasLt.h NVJPEG_INCLUDE:nvjpeg.h
          NVRTC_INCLUDE:nvrtc.h CUDART_INCLUDE:cuda_runtime.h CUDART:libcudart_static.a)
    string(REPLACE ":" ";" piece ${piece})
    list(GET piece 0 variable)
    list(GET piece 1 header)
    if(NOT CONVOLT_${variable})
      list(APPEND CONVOLT_CUDA_MISSING ${header})
    endif()
  endforeach()
  if(CONVOLT_CUDA STREQUAL "AUTO" AND CONVOLT_SANITIZE)
    list(APPEND CONVOLT_CUDA_MISSING "a build without CONVOLT_SANITIZE (g++ compiles the kernels then)")
  endif()

  list(JOIN CONVOLT_CUDA_MISSING ", " CONVOLT_CUDA_MISSING)
  if(NOT CONVOLT_CUDA_MISSING)
    set(CONVOLT_WITH_CUDA ON)
  elseif(CONVOLT_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: off, for want of ${CONVOLT_CUDA_MISSING}")
  else()
    message(FATAL_ERROR "CONVOLT_CUDA=ON lacks ${CONVOLT_CUDA_MISSING}; tools/fetch_cuda_deps.sh --toolkit fetches what is missing into .deps")
  endif()
endif()

if(CONVOLT_WITH_CUDA)
  if(NOT DEFINED CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${CONVOLT_NVCC})
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real) # with the instructions of Hopper alone
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  enable_language(CUDA)
  # CMake 3.25.1 does not know how nvcc is told C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  # By hand: FindCUDAToolkit of CMake 3.25.1 stops at a toolkit without nvToolsExt, which CUDA 13 no longer has.
  add_library(CUDA::cudart_static STATIC IMPORTED)
  set_target_properties(CUDA::cudart_static PROPERTIES IMPORTED_LOCATION ${CONVOLT_CUDART}
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${CONVOLT_CUDART_INCLUDE} INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};rt")
  find_package(Python3 REQUIRED COMPONENTS Interpreter) # for the kernel budget
  # nvcc takes one level, for the host's half of a kernel, and hands on -Xcompiler before it: CMakeLists.txt says it file by file.
  set(CMAKE_CUDA_FLAGS_RELEASE -DNDEBUG)
  message(STATUS "CUDA: on, nvcc ${CMAKE_CUDA_COMPILER_VERSION} for sm_${CMAKE_CUDA_ARCHITECTURES}")
endif()

# Called once the targets exist.
function(convolt_configure_cuda)
  # The host half of a .cu is the CPU's kernel, so it gets the same code quality as under g++. Device code is packed as
  # small as can be: an eighth of what nvcc makes of it by default.
  list(JOIN CONVOLT_CPU "," cpu)
  target_compile_options(convolt_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size;--expt-relaxed-constexpr;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-Werror,${cpu},-ffp-contract=off>")
  if(CONVOLT_OPENMP)
    target_compile_options(convolt_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fopenmp>)
  else()
    target_compile_options(convolt_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-unknown-pragmas>)
  endif()

  target_sources(convolt_base PRIVATE src/device/dynamic_library.cpp src/conv/cuda_provider.cpp)
  # Private, so that all other files are compiled as for the CPU: ccache then has them from that build.
  target_link_libraries(convolt_base PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
  target_include_directories(convolt_base SYSTEM PRIVATE ${CONVOLT_CUDNN_FRONTEND} ${CONVOLT_CUDNN_INCLUDE} ${CONVOLT_CUBLASLT_INCLUDE})
  target_link_libraries(convolt_data PRIVATE CUDA::cudart_static)
  target_include_directories(convolt_data SYSTEM PRIVATE ${CONVOLT_NVJPEG_INCLUDE})
  set_source_files_properties(src/device/dynamic_library.cpp PROPERTIES COMPILE_DEFINITIONS CONVOLT_DEPS="${CONVOLT_DEPS}")
  set_source_files_properties(src/conv/conv_cudnn.cpp PROPERTIES
    COMPILE_OPTIONS -Os # the frontend's headers are a twelfth of a program's code; what a step runs of them is captured once
    COMPILE_DEFINITIONS "NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING;CUDNN_FRONTEND_SKIP_JSON_LIB")

  # ptxas reports registers, stack and spills of each kernel; the launcher keeps the report beside the object file, where
  # tools/kernel_budget.py compares it with the recorded budget.
  foreach(library convolt_kernels convolt_base)
    target_compile_options(${library} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v>)
    set_target_properties(${library} PROPERTIES CUDA_COMPILER_LAUNCHER
      "${Python3_EXECUTABLE};${PROJECT_SOURCE_DIR}/tools/kernel_budget.py;--launch;${CMAKE_CUDA_COMPILER_LAUNCHER}")
  endforeach()

  # A toolkit that is whole has CUPTI; what .deps has of one has not.
  find_path(CONVOLT_CUPTI_INCLUDE cupti.h HINTS ${CONVOLT_CUDART_INCLUDE})
  find_library(CONVOLT_CUPTI cupti HINTS ${CONVOLT_CUDART_INCLUDE}/../lib64 ${CONVOLT_CUDART_INCLUDE}/../lib)
  if(CONVOLT_CUPTI_INCLUDE AND CONVOLT_CUPTI)
    add_library(kernel_trace MODULE EXCLUDE_FROM_ALL benchmarks/kernel_trace.cpp)
    target_include_directories(kernel_trace SYSTEM PRIVATE ${CONVOLT_CUPTI_INCLUDE})
    target_link_libraries(kernel_trace PRIVATE ${CONVOLT_CUPTI})
  endif()
endfunction()
