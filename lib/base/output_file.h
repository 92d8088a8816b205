// Writing results: the one place that replaces files. Looking at them beforehand: include/autoscheme/output.h.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/io.h"

namespace autoscheme {

// Symbolic links are followed, dangling ones too. A regular file is replaced: temporary file in the same folder, write,
// fsync, rename, fsync of the folder, so that it holds either the old or the new contents at any moment; a file that
// was there passes on its mode, and its owner where the system permits. An access list (ACL) is not passed on: the
// file's group then gets no more than everybody has. Its other hard links keep the old contents. On
// error the temporary file is gone and the old one untouched; only when the folder's fsync is what failed, the new
// contents stand but may not survive a power cut. A character device, a pipe and a descriptor of this process
// (/dev/stdout, /dev/fd/3) are written to; a pipe waits for its reader. Folders, block devices, sockets in the file
// system, mount points and files without write permission are refused.
absl::Status WriteOutput(Io& io, const std::string& path, absl::string_view contents);

}  // namespace autoscheme
