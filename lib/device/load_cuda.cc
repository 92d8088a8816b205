#include "device/load_cuda.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

constexpr char kPlugin[] = "libautoscheme_cuda.so";
constexpr char kVariable[] = "AUTOSCHEME_CUDA_PLUGIN";
constexpr char kFetch[] = "cmake/bootstrap.sh --cuda fetches the libraries that LibTorch's CUDA half needs";

bool IsFile(const std::string& path) { return access(path.c_str(), R_OK) == 0; }

std::string FolderOf(absl::string_view path) { return std::string(path.substr(0, path.rfind('/'))); }

// The folder, as a full path, of the library or program that holds `address`; empty where the system does not tell.
// The name by which a library was loaded may be relative to what was the current folder then.
std::string FolderHolding(const void* address) {
  Dl_info info;
  link_map* map = nullptr;
  if (dladdr1(address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) return "";
  char path[PATH_MAX + 1] = {};
  if (*map->l_name == '\0') {  // the program
    const ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    return length > 0 ? FolderOf(path) : "";
  }
  if (*map->l_name == '/') return FolderOf(map->l_name);
  return dlinfo(map, RTLD_DI_ORIGIN, path) == 0 ? path : "";
}

std::string LoaderError() {
  const char* text = dlerror();
  return text != nullptr ? text : "the loader does not say why";
}

}  // namespace

absl::StatusOr<const DeviceApi*> LoadCuda() {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string plugin, FindCudaPlugin());
  AUTOSCHEME_RETURN_IF_ERROR(LoadTorchCuda());
  return LoadTable(plugin);
}

absl::StatusOr<std::string> FindCudaPlugin() {
  const char* named = secure_getenv(kVariable);
  if (named != nullptr && *named != '\0') {
    if (*named != '/') {
      return absl::InvalidArgumentError(
          absl::StrCat("device cuda: ", kVariable, " is ", Quoted(named), ", must be a full path"));
    }
    if (IsFile(named)) return std::string(named);
    return absl::NotFoundError(absl::StrCat("device cuda: ", kVariable, " is ", Quoted(named),
                                            ", which cannot be read: name the plugin ", kPlugin, ", or unset it"));
  }
  const std::string folder = FolderHolding(reinterpret_cast<const void*>(&FindCudaPlugin));
  const std::string path = absl::StrCat(folder, "/", kPlugin);
  if (!folder.empty() && IsFile(path)) return path;
  return absl::UnimplementedError(absl::StrCat("device cuda: this installation has no plugin for it, ", Quoted(path),
                                               ": build with -DAUTOSCHEME_CUDA=ON, or name the plugin by ", kVariable));
}

absl::Status LoadTorchCuda() {
  const std::string folder = FolderHolding(reinterpret_cast<const void*>(&at::detail::getCUDAHooks));
  const std::string path = absl::StrCat(folder, "/libtorch_cuda.so");
  if (!IsFile(path)) {
    return absl::FailedPreconditionError(absl::StrCat("device cuda: LibTorch in ", Quoted(folder),
                                                      " is one for the processor alone: it has no libtorch_cuda.so"));
  }
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("device cuda: ", Quoted(path), " cannot be loaded: ", LoaderError(), "; ", kFetch));
  }
  // Only the hooks of the CUDA half say that they have the run time.
  if (at::detail::getCUDAHooks().hasCUDART()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "device cuda: something in this process, as a backward pass on the processor, has asked LibTorch for CUDA before "
      "its CUDA half was loaded, and LibTorch does not look again: start a process that creates its generator with "
      "device cuda, or loads libtorch_cuda.so, before anything else computes");
}

absl::StatusOr<const DeviceApi*> LoadTable(const std::string& plugin) {
  void* const library = dlopen(plugin.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("device cuda: plugin ", Quoted(plugin), " cannot be loaded: ", LoaderError(), "; ", kFetch));
  }
  const auto function = reinterpret_cast<DeviceApiFunction>(dlsym(library, kDeviceApiSymbol));
  const DeviceApi* const table = function != nullptr ? function() : nullptr;
  if (table != nullptr && table->version == kDeviceApiVersion && table->bytes == sizeof(DeviceApi)) return table;
  const std::string what = table == nullptr
                               ? absl::StrCat(" is no plugin of autoscheme: it gives no table by ", kDeviceApiSymbol)
                               : absl::StrCat(" has a table of version ", table->version, " and ", table->bytes,
                                              " bytes, must be ", kDeviceApiVersion, " and ", sizeof(DeviceApi));
  dlclose(library);
  return absl::FailedPreconditionError(
      absl::StrCat("device cuda: ", Quoted(plugin), what, ": build it from the same sources as this library"));
}

}  // namespace autoscheme
