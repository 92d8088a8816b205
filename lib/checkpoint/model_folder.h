// A model's folder: its files, a set of shards that no index lists, and what people have in place of weights.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/io.h"

namespace autoscheme {

// The names of what lies in a folder, sorted; none where it cannot be listed.
std::vector<std::string> NamesIn(Io& io, const std::string& folder);

class ModelFolder {
 public:
  ModelFolder(Io& io, const std::string& path);

  // Where that file lies. In a copy of the Hugging Face cache that has lost its links, small files hold their text,
  // which is followed.
  std::string Path(const std::string& name) const;
  // Whether there is such a file or folder. Errors other than its absence are returned.
  absl::StatusOr<bool> Exists(const std::string& name) const;
  // ", a link to ..." for a link, else "".
  std::string LinkNote(const std::string& name) const;
  // Files that belong to an adapter (LoRA), which is never applied.
  std::vector<std::string> AdapterFiles() const { return Files("adapter_config.json adapter_model*"); }
  // Files named like shards, "model-00001-of-00003.safetensors".
  std::vector<std::string> ShardFiles() const;
  // All files of the complete set of shards in the folder, else of an incomplete one, missing ones included; empty
  // without a set. INVALID_ARGUMENT where several are complete.
  absl::StatusOr<std::vector<std::string>> ShardSet() const;
  // `error`, of something that the folder lacks, with what it holds instead and what can be done about that.
  // UNIMPLEMENTED where it holds a model in another form.
  absl::Status Describe(const absl::Status& error) const;

 private:
  std::vector<std::string> Files(const char* patterns, const char* but = "") const;

  Io& io_;
  const std::string path_;
  const bool is_snapshot_;  // the folder is one of the Hugging Face cache
  const std::vector<std::string> names_;
};

}  // namespace autoscheme
