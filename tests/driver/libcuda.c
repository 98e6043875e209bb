/* A driver that finds no GPU: the names mxnet-cu112 needs of libcuda.so.1, each returning
   CUDA_ERROR_NO_DEVICE. With it, all that lies before the driver can be tested on any machine. */
#define ABSENT(name) int name(void) { return 100; }
ABSENT(cuInit)
ABSENT(cuDriverGetVersion)
ABSENT(cuDeviceGet)
ABSENT(cuDevicePrimaryCtxRetain)
ABSENT(cuGetErrorString)
ABSENT(cuGraphKernelNodeGetParams)
ABSENT(cuGraphNodeGetType)
ABSENT(cuLaunchKernel)
ABSENT(cuModuleGetFunction)
ABSENT(cuModuleLoadData)
ABSENT(cuModuleLoadDataEx)
ABSENT(cuModuleUnload)
