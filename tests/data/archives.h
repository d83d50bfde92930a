// Archives for tests, made by libarchive and libzip.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <zip.h>

#include <memory>
#include <stdexcept>
#include <string_view>
#include <type_traits>

#include "test_files.h"

namespace convolt::test {

// A member: a file, a folder where the name ends with '/', or a link.
struct Packed {
  std::string name;
  Bytes bytes = {};
  std::string symlink = {}, hardlink = {};  // what it points to
};

// As bytes, in one of libarchive's formats ("ustar", "pax", "gnutar") behind a filter ("gzip", "zstd", "xz", "none").
// Names go into pax headers as UTF-8, as other programs write them.
inline Bytes make_tar(const std::vector<Packed>& members, const char* format = "pax", const char* filter = "none") {
  const std::unique_ptr<std::remove_pointer_t<locale_t>, void (*)(locale_t)> utf8(
      newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr), freelocale);
  const std::unique_ptr<std::remove_pointer_t<locale_t>, locale_t (*)(locale_t)> before(uselocale(utf8.get()),
                                                                                        uselocale);
  Bytes bytes(1 << 22);
  size_t used = 0;
  const std::unique_ptr<archive, int (*)(archive*)> a(archive_write_new(), archive_write_free);
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
  const auto check = [&](int status) {
    if (status != ARCHIVE_OK) throw std::runtime_error(archive_error_string(a.get()));
  };
  check(archive_write_set_format_by_name(a.get(), format));
  if (std::string_view(filter) != "none") check(archive_write_add_filter_by_name(a.get(), filter));
  check(archive_write_set_bytes_in_last_block(a.get(), 1));
  check(archive_write_open_memory(a.get(), bytes.data(), bytes.size(), &used));
  for (const Packed& m : members) {
    archive_entry_clear(entry.get());
    archive_entry_set_pathname(entry.get(), m.name.c_str());
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_filetype(entry.get(), m.name.ends_with('/') ? AE_IFDIR : AE_IFREG);
    if (!m.symlink.empty()) {
      archive_entry_set_filetype(entry.get(), AE_IFLNK);
      archive_entry_set_symlink(entry.get(), m.symlink.c_str());
    }
    if (!m.hardlink.empty()) archive_entry_set_hardlink(entry.get(), m.hardlink.c_str());
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(m.bytes.size()));
    check(archive_write_header(a.get(), entry.get()));
    if (!m.bytes.empty() &&
        archive_write_data(a.get(), m.bytes.data(), m.bytes.size()) != static_cast<la_ssize_t>(m.bytes.size()))
      throw std::runtime_error(archive_error_string(a.get()));
  }
  check(archive_write_close(a.get()));
  bytes.resize(used);
  return bytes;
}

struct ZipOptions {
  int method = ZIP_CM_DEFLATE;
  const char* password = nullptr;
};
inline void write_zip(const std::filesystem::path& path, const std::vector<Packed>& members, ZipOptions options = {}) {
  zip_t* zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  if (zip == nullptr) throw std::runtime_error("cannot make " + path.string());
  for (const Packed& m : members) {
    if (m.name.ends_with('/')) {
      zip_dir_add(zip, m.name.c_str(), 0);
      continue;
    }
    zip_source_t* source = zip_source_buffer(zip, m.bytes.data(), m.bytes.size(), 0);
    const auto i = static_cast<zip_uint64_t>(zip_file_add(zip, m.name.c_str(), source, 0));
    zip_set_file_compression(zip, i, options.method, 0);
    if (!m.symlink.empty()) zip_file_set_external_attributes(zip, i, 0, ZIP_OPSYS_UNIX, 0120777U << 16);
    if (options.password != nullptr) zip_file_set_encryption(zip, i, ZIP_EM_TRAD_PKWARE, options.password);
  }
  if (zip_close(zip) != 0) throw std::runtime_error(zip_strerror(zip));
}

}  // namespace convolt::test
