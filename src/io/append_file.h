// A file that grows piece by piece: each piece is in it whole or not at all.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "io/descriptor.h"

namespace convolt {

// Move-only; not thread-safe. Throws Error with path and reason when the file cannot be written.
class AppendFile {
public:
  // Starts an empty file; what was there is gone.
  static AppendFile create(std::string path);
  // Goes on with a file after its text has become rewrite(text); "" is the text of a file that is not there. The file
  // is replaced in one go, and left alone where nothing changes.
  static AppendFile resume(std::string path, const std::function<std::string(std::string_view)>& rewrite);

  // The bytes have reached the operating system when this returns. What does not fit on the disk is taken back.
  void append(std::string_view bytes);

private:
  AppendFile(std::string path, int extra_flags);
  [[noreturn]] void fail() const;  // with errno's reason

  std::string path_;
  Descriptor file_;
};

}  // namespace convolt
