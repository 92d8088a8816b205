// probe: what a machine's device, its memory and its disk can do, through a plugin's table alone
// (lib/device/device_api.h).
//
// usage: probe load PLUGIN                exit status 0 when this machine loads it and its table is this version's
//        probe init PLUGIN [LIBTORCH_DIR] memory that LibTorch's device code and the device's context take
//        probe transfer PLUGIN            pinned copies to the device and back
//        probe products PLUGIN [--small]  matrix products at the shapes of an 8B model's layers
//        probe disk FILE...               reads of at most 4 GiB past the page cache, eight at a time
//
// Prints one `name value` on each line; numbers in GB, GB/s and TFLOP/s. Exit status 1 with one line on stderr.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "device/device_api.h"
#include "gpu/plugin.h"

namespace autoscheme {
namespace {

constexpr double kGiga = 1e9;

void Print(const char* name, double value) { std::printf("%s %.4g\n", name, value); }

// An opened device and what the probes do with it.
class Opened {
 public:
  explicit Opened(const DeviceApi& api) : api_(api) {
    int32_t count = 0;
    Must(api_.count(&count), "counting devices");
    if (count < 1) Fail("there is no device");
    Must(api_.open(0, &handle_), "opening device 0");
  }
  ~Opened() { api_.close(handle_); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  const DeviceApi& api() const { return api_; }
  void* handle() const { return handle_; }
  void Must(DeviceResult result, const char* what) const {
    if (result != DeviceResult::kOk) Fail(std::string(what) + ": " + api_.last_error());
  }
  void* Memory(size_t bytes) const {
    void* data = nullptr;
    Must(api_.allocate(handle_, bytes, &data), "allocating memory of the device");
    return data;
  }
  // Seconds that the device takes for what `work` gives to a stream.
  template <typename Work>
  double Seconds(DeviceStream stream, const Work& work) const {
    void *begin = nullptr, *end = nullptr;
    Must(api_.create_event(handle_, &begin), "making an event");
    Must(api_.create_event(handle_, &end), "making an event");
    Must(api_.record(handle_, stream, begin), "recording an event");
    work();
    Must(api_.record(handle_, stream, end), "recording an event");
    Must(api_.wait(handle_, end), "waiting");
    double seconds = 0;
    Must(api_.elapsed(handle_, begin, end, &seconds), "asking for the time");
    api_.destroy_event(handle_, begin);
    api_.destroy_event(handle_, end);
    return std::max(seconds, 1e-9);
  }

 private:
  const DeviceApi& api_;
  void* handle_ = nullptr;
};

double ResidentGigabytes() {
  std::ifstream statm("/proc/self/statm");
  double pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / kGiga;
}

void PrintDeviceMemory(const Opened& device, const char* free_name, const char* process_name) {
  uint64_t free = 0, process = 0;
  device.Must(device.api().memory(device.handle(), &free, &process), "asking for its memory");
  Print(free_name, static_cast<double>(free) / kGiga);
  Print(process_name, static_cast<double>(process) / kGiga);
}

void Init(const char* plugin, const std::string& torch) {
  Print("rss_start_gb", ResidentGigabytes());
  for (const char* name : {"libtorch_cpu.so", "libtorch_cuda.so"}) {
    if (torch.empty()) break;
    const std::string path = torch + "/" + name;
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) Fail("loading " + path + ": " + dlerror());
    Print((std::string("rss_") + name + "_gb").c_str(), ResidentGigabytes());
  }
  const Opened device(LoadPlugin(plugin));
  DeviceProperties properties = {};
  device.Must(device.api().properties(device.handle(), &properties), "asking what it is");
  std::printf("device %s, compute capability %d.%d\n", properties.name, properties.major, properties.minor);
  Print("driver", properties.driver);
  Print("runtime", properties.runtime);
  Print("device_total_gb", static_cast<double>(properties.total_bytes) / kGiga);
  PrintDeviceMemory(device, "device_free_gb", "device_process_gb");
  Print("rss_context_gb", ResidentGigabytes());
}

void Transfer(const char* plugin) {
  const Opened device(LoadPlugin(plugin));
  const DeviceApi& api = device.api();
  constexpr size_t kSlot = size_t{16} << 20, kSlots = 8;
  constexpr int kRounds = 4;
  void* allocated = nullptr;
  device.Must(api.allocate_pinned(device.handle(), kSlot * kSlots, &allocated), "allocating pinned memory");
  void* mapped = mmap(nullptr, kSlot * kSlots, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) Fail("mmap: no memory");
  device.Must(api.pin(device.handle(), mapped, kSlot * kSlots), "pinning memory in place");
  void* there = device.Memory(kSlot * kSlots);

  const auto copy = [&](const char* name, DeviceStream stream, void* host, auto function, bool up) {
    std::memset(host, 1, kSlot * kSlots);
    const double seconds = device.Seconds(stream, [&] {
      for (size_t i = 0; i < kRounds * kSlots; ++i) {
        const size_t at = i % kSlots * kSlot;
        char *a = static_cast<char*>(host) + at, *b = static_cast<char*>(there) + at;
        device.Must(function(device.handle(), stream, up ? b : a, up ? a : b, kSlot), name);
      }
    });
    Print(name, kRounds * kSlots * kSlot / seconds / kGiga);
  };
  copy("up_gb_per_s", DeviceStream::kUp, allocated, api.copy_up, true);
  copy("up_pinned_in_place_gb_per_s", DeviceStream::kUp, mapped, api.copy_up, true);
  copy("down_gb_per_s", DeviceStream::kDown, allocated, api.copy_down, false);

  device.Must(api.unpin(device.handle(), mapped), "unpinning memory");
  munmap(mapped, kSlot * kSlots);
  device.Must(api.release_pinned(device.handle(), allocated), "releasing pinned memory");
  device.Must(api.release(device.handle(), there), "releasing memory of the device");
}

// Numbers near 1 in magnitude, in either type: zeros would draw less power, and so run faster, than a model's.
std::vector<uint16_t> RandomHalves(size_t count) {
  std::mt19937 random(7);
  std::vector<uint16_t> halves(count);
  for (uint16_t& half : halves) half = static_cast<uint16_t>(0x3e80 + random() % 0x100 + (random() % 2 << 15));
  return halves;
}

struct Shape {
  int64_t rows, inner, columns;
  double flops() const { return 2.0 * static_cast<double>(rows * inner * columns); }
};

void Products(const char* plugin, bool small) {
  const Opened device(LoadPlugin(plugin));
  const DeviceApi& api = device.api();
  // Rows of one batch times the transposed weights of q, gate and down, then the gradient of gate's weight.
  const int64_t k = small ? 64 : 1, rows = 2048 / k, hidden = 4096 / k, mlp = 14336 / k;
  const Shape shapes[] = {{rows, hidden, hidden}, {rows, hidden, mlp}, {rows, mlp, hidden}, {mlp, rows, hidden}};
  const auto elements = static_cast<size_t>(mlp * hidden);
  const std::vector<uint16_t> halves = RandomHalves(elements);
  std::vector<uint32_t> floats(elements);
  for (size_t i = 0; i < elements; ++i) floats[i] = uint32_t{halves[i]} << 16 | (halves[i] * 40503u & 0xffffu);
  void *a = device.Memory(4 * elements), *b = device.Memory(4 * elements), *out = device.Memory(4 * elements);

  const auto measure = [&](const char* name, const void* values, Number type, ProductType product) {
    const size_t bytes = elements * (type == Number::kF32 ? 4 : 2);
    for (void* to : {a, b}) {
      device.Must(api.copy_up(device.handle(), DeviceStream::kCompute, to, values, bytes), "copying factors");
    }
    double flops = 0, seconds = 0;
    for (const Shape& s : shapes) {
      const DeviceMatrix x{a, s.rows, s.inner, s.inner, 1, type}, w{b, s.inner, s.columns, 1, s.inner, type},
          y{out, s.rows, s.columns, s.columns, 1, Number::kF32};
      const auto multiply = [&](int times) {
        for (int i = 0; i < times; ++i) {
          device.Must(api.multiply(device.handle(), &y, &x, &w, product, 0), "multiplying");
        }
      };
      multiply(2);
      const int times = small ? 2 : std::max(3, static_cast<int>(5e12 / s.flops()));
      seconds += device.Seconds(DeviceStream::kCompute, [&] { multiply(times); });
      flops += times * s.flops();
    }
    Print(name, flops / seconds / 1e12);
  };
  measure("float32_tflops", floats.data(), Number::kF32, ProductType::kExact);
  measure("tf32_tflops", floats.data(), Number::kF32, ProductType::kTf32);
  measure("bfloat16_tflops", halves.data(), Number::kBF16, ProductType::kExact);
  PrintDeviceMemory(device, "device_free_gb", "device_process_gb");
  for (void* data : {a, b, out}) device.Must(api.release(device.handle(), data), "releasing memory of the device");
}

// Reads pieces of the files by several threads until all are read; past the page cache where the file system permits.
void Disk(const std::vector<const char*>& files) {
  constexpr int64_t kPiece = int64_t{4} << 20;
  std::vector<int> descriptors;
  std::vector<int64_t> first{0};  // the number of each file's first piece
  for (const char* name : files) {
    int file = open(name, O_RDONLY | O_DIRECT);
    if (file < 0) file = open(name, O_RDONLY);
    struct stat status = {};
    if (file < 0 || fstat(file, &status) != 0) Fail(std::string(name) + ": " + std::strerror(errno));
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    descriptors.push_back(file);
    first.push_back(first.back() + (status.st_size + kPiece - 1) / kPiece);
  }
  const int64_t pieces = std::min<int64_t>(first.back(), (int64_t{4} << 30) / kPiece);
  std::atomic<int64_t> next{0}, bytes{0}, faults{0};
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      void* buffer = aligned_alloc(4096, kPiece);
      for (int64_t piece = next++; piece < pieces; piece = next++) {
        const auto file = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), piece) - first.begin() - 1);
        const ssize_t got = pread(descriptors[file], buffer, kPiece, (piece - first[file]) * kPiece);
        got > 0 ? bytes += got : ++faults;
      }
      free(buffer);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (const int file : descriptors) close(file);
  if (faults > 0) Fail("the files cannot be read");
  Print("disk_gb_per_s", static_cast<double>(bytes) / seconds.count() / kGiga);
}

int Main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[1] : "";
  if (what == "load") {
    std::printf("plugin %s\n", LoadPlugin(argv[2]).name);
  } else if (what == "init") {
    Init(argv[2], argc > 3 ? argv[3] : "");
  } else if (what == "transfer") {
    Transfer(argv[2]);
  } else if (what == "products") {
    Products(argv[2], argc > 3 && std::strcmp(argv[3], "--small") == 0);
  } else if (what == "disk") {
    Disk({argv + 2, argv + argc});
  } else {
    std::fprintf(stderr,
                 "usage: probe load|transfer|products PLUGIN, probe init PLUGIN [LIBTORCH_DIR], probe disk FILE...\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace autoscheme

int main(int argc, char** argv) { return autoscheme::Main(argc, argv); }
