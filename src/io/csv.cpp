#include "io/csv.h"

#include <algorithm>

#include "convolt/error.h"

namespace convolt {
namespace {

class Reader {
public:
  Reader(std::string_view text, char separator) : text_(text), separator_(separator) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }
  bool at_end() const { return text_.empty(); }
  int64_t line() const { return line_; }

  // The fields of the next record; one that is empty stands for an empty line.
  void record(std::vector<std::string>& fields) {
    size_t count = 0;
    do {
      if (count == fields.size()) fields.emplace_back();
      std::string& field = fields[count++];  // whose memory is used again
      if (text_.starts_with('"'))
        quoted(field);
      else
        plain(field);
    } while (take(separator_));
    fields.resize(count);
    take('\r');
    if (take('\n')) ++line_;
  }

private:
  bool take(char c) {
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool at_line_end() const { return text_.empty() || text_.starts_with('\n') || text_.starts_with("\r\n"); }

  void plain(std::string& field) {
    const auto stop = std::ranges::find_if(text_, [this](char c) { return c == separator_ || c == '\n'; });
    field.assign(text_.begin(), stop);
    if ((stop == text_.end() || *stop == '\n') && field.ends_with('\r')) field.pop_back();
    text_.remove_prefix(field.size());
  }

  void quoted(std::string& field) {
    const int64_t first = line_;
    text_.remove_prefix(1);
    field.clear();
    for (;;) {
      const size_t stop = text_.find('"');
      if (stop == std::string_view::npos)
        throw FormatError("line " + std::to_string(first) + ": quotes are opened and never closed");
      for (const char c : text_.substr(0, stop)) line_ += c == '\n' ? 1 : 0;
      field += text_.substr(0, stop);
      text_.remove_prefix(stop + 1);
      if (!take('"')) break;
      field += '"';
    }
    if (!at_line_end() && !text_.starts_with(separator_))
      throw FormatError("line " + std::to_string(line_) +
                        ": text follows closing quotes; within a field quotes are doubled");
  }

  std::string_view text_;
  char separator_;
  int64_t line_ = 1;
};

}  // namespace

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

void read_csv(std::string_view text, char separator, const std::function<void(int64_t, std::vector<std::string>&)>& f) {
  Reader reader(text, separator);
  std::vector<std::string> fields;
  while (!reader.at_end()) {
    const int64_t line = reader.line();
    reader.record(fields);
    if (fields.size() > 1 || !fields[0].empty()) f(line, fields);
  }
}

}  // namespace convolt
