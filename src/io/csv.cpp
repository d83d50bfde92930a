#include "io/csv.h"

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
    fields.clear();
    do fields.push_back(text_.starts_with('"') ? quoted() : plain());
    while (take(separator_));
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

  std::string plain() {
    const size_t stop = text_.find_first_of(std::string{separator_, '\n'});
    std::string_view field = text_.substr(0, stop);
    if ((stop == std::string_view::npos || text_[stop] == '\n') && field.ends_with('\r')) field.remove_suffix(1);
    text_.remove_prefix(field.size());
    return std::string(field);
  }

  std::string quoted() {
    const int64_t first = line_;
    text_.remove_prefix(1);
    std::string field;
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
    return field;
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
