# The sources of kernels.h, and the options without which their results are not the CPU's: nothing is fused or flushed, quotients
# and roots are exact. Headers are included as in lib/.
set(AUTOSCHEME_CUDA_KERNELS ${CMAKE_CURRENT_LIST_DIR}/quant_kernels.cu ${CMAKE_CURRENT_LIST_DIR}/sum_kernels.cu)
set(AUTOSCHEME_CUDA_KERNEL_OPTIONS -fmad=false -prec-div=true -prec-sqrt=true -ftz=false)
