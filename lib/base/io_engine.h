// What has been found out about reading one set of files.
#ifndef AUTOSCHEME_BASE_IO_ENGINE_H_
#define AUTOSCHEME_BASE_IO_ENGINE_H_

#include <atomic>
#include <cstdint>

#include "autoscheme/io_engine.h"

namespace autoscheme {

// Which engines do not work on the files, and which was fastest: learned by one stream, used by the later ones.
// Thread-safe.
class EngineRecord {
 public:
  bool failed(IoEngine engine) const { return (failed_.load(std::memory_order_relaxed) & Bit(engine)) != 0; }
  // True for the one call that finds it out.
  bool MarkFailed(IoEngine engine) {
    return (failed_.fetch_or(Bit(engine), std::memory_order_relaxed) & Bit(engine)) == 0;
  }
  // `engine`, or the first after it in the list that has not failed; buffered reads never do.
  IoEngine Working(IoEngine engine) const {
    while (engine != IoEngine::kBuffered && failed(engine))
      engine = static_cast<IoEngine>(static_cast<int32_t>(engine) + 1);
    return engine;
  }
  IoEngine fastest() const { return fastest_.load(std::memory_order_relaxed); }  // kAuto: not measured
  void set_fastest(IoEngine engine) { fastest_.store(engine, std::memory_order_relaxed); }

 private:
  static uint32_t Bit(IoEngine engine) { return 1u << static_cast<int32_t>(engine); }
  std::atomic<uint32_t> failed_{0};
  std::atomic<IoEngine> fastest_{IoEngine::kAuto};
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_BASE_IO_ENGINE_H_
