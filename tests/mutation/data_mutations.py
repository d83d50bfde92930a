"""Faults that test_data must find, as kernel_mutations.py has those of test_kernels."""
STREAM = "Devices/Stream.*:Devices/LoaderTest.*:Devices/LoaderLife.*:Order.*:PictureCapacity.*"
DECODE = "ScaledDecode.*:DecodeRegion.*:Gif.*:WebP.*:Background.*:Pnm.*:ViewInPlace.*"
INDEX = "FolderIndexTest.*:Devices/IndexedSetTest.*"

GROWTH = "Devices/LoaderGrowTest.*:Devices/LoaderMixTest.*"

ON_DEVICE = "Cpu/DeviceDecoding.*:RegionOnDevice.*:PlainJpeg.*:Slot.*"

# file: (filter of the tests; mutations)
DATA = {
    "src/data/view.cpp": (DECODE, [
        ("constant", "std::min(std::abs(a), std::abs(d))", "std::max(std::abs(a), std::abs(d)) + 1"),
        ("index", "record.map[i] * axes[axis]->factor + shift", "record.map[i] * axes[axis]->factor"),
        ("index", "record.map[i] * axes[axis]->factor + shift", "record.map[i] + shift"),
        ("index", "blends ? spacing_of(record) : 1", "spacing_of(record)"),
        ("index", "box.top * stride + box.left * pixel", "box.top * stride"),
        ("index", "box.width * pixel, stride};", "box.width * pixel, box.width * pixel};"),
    ]),
    "src/data/decode.cpp": (DECODE, [
        ("constant", "while (scale > 1 && scale > limit) scale /= 2;", "while (scale > 1 && scale / 2 > limit) scale /= 2;"),
        ("index", "(limits.full_decode ? 1 : spacing) * per_pixel", "(limits.full_decode ? 1 : spacing)"),
        ("index", "turning.transposed ? turning.rows_mirrored : turning.columns_mirrored", "turning.columns_mirrored"),
        ("sign", "(*background)[c] * (255 - alpha)", "(*background)[c] * (256 - alpha)"),
        ("constant", "255.0 / header.white", "1.0 / 256"),
    ]),
    "src/data/decode_jpeg.cpp": (DECODE, [
        ("index", "if (by_dct &&", "if (false &&"),
        ("index", "if (known_sound) return;", ""),
        ("index", "if (known_sound) return;", "return;"),
    ]),
    "src/data/decode_gif.cpp": (DECODE, [
        ("index", "{4, 8}, {2, 4}", "{2, 4}, {4, 8}"),
        ("index", "+ place_.Left) * 4", ") * 4"),
    ]),
    "src/data/decode_webp.cpp": (DECODE, [
        ("index", "if (features.has_animation) return", "if (false) return"),
    ]),
    "src/data/batch_order.cpp": (STREAM, [
        ("index", "index / group() * part() * options_.ranks", "index / group() * part()"),
        ("index", "+ first_row() +", "+"),
        ("index", "index % group() * options_.batch + row", "row"),
        ("constant", "size_ / global * group()", "size_ / global"),
        ("constant", "(size_ + global - 1) / global", "size_ / global"),
    ]),
    "src/data/batch_order.h": (STREAM, [
        ("index", "options_.training ? options_.group : 1", "options_.group"),
        ("index", "int64_t{options_.rank} * part()", "int64_t{options_.rank} * options_.batch"),
    ]),
    "src/data/order.cpp": (STREAM, [
        ("index", "once(epoch, position / repeats_)", "once(epoch, position)"),
        ("index", "* repeats_ + position % repeats_;", "* repeats_;"),
        ("index", "/ size_ * repeats_ + position", "/ size_ + position"),
    ]),
    "src/data/shown_row.cpp": (GROWTH, [
        ("index", "o.batch - 1 - shown.row", "shown.row"),
        ("index", "position_of(batch, 0)", "position_of(batch, shown.row)"),
        ("index", "epoch * order.steps_per_epoch()", "0"),
    ]),
    "src/augment/size_ramp.cpp": (GROWTH, [
        ("constant", "ramp.least + way * (full", "way * (full"),
        ("sign", "epoch - ramp.start)", "epoch + 1 - ramp.start)"),
        ("constant", "epoch >= ramp.end", "epoch > ramp.end + 1"),
    ]),
    "src/data/slot_ring.cpp": (STREAM + ":" + ON_DEVICE, [
        ("index", "room() - device_bytes_.fetch_add(size) - size", "room() - device_bytes_.fetch_add(size)"),
        ("index", "take(size) ? copied_bytes_.fetch_add(size)", "copied_bytes_ + size <= room() ? copied_bytes_.fetch_add(size)"),
        ("constant", "taken_.fetch_sub(bytes);", ""),
        ("constant", "taken_ = copied_bytes_ = device_bytes_ = 0;", "taken_ = copied_bytes_ = 0;"),
        ("constant", "int64_t{0}) * repeats +", "int64_t{0}) +"),
        ("constant", "(batch + repeats - 1) / repeats", "batch / repeats"),
    ]),
    "src/data/loader_setup.cpp": (STREAM, [
        ("constant", "(options.memory - threads) / each", "options.memory / slot_bytes"),
        ("constant", "at_will ? options.batch :", "false && at_will ? options.batch :"),
        ("constant", "int64_t{options.batch} * options.ranks", "int64_t{options.batch}"),
    ]),
    "src/data/row_filler.cpp": (STREAM + ":" + ON_DEVICE, [
        ("index", "decoded.on_device ? slot.reserve_on_device(bytes) : slot.reserve(bytes)", "slot.reserve(bytes)"),
        ("index", "if (!decoded.on_device) {", "if (true) {"),
        ("index", "  } catch (const DeviceError& error) {\n    throw_named(error, name);\n", ""),
        ("index", "thread.times.decode += seconds_between(read, end);", ""),
        ("index", "|| !dataset_.fetches_ahead()", ""),
        ("index", "limits.known_sound = is_sound(sample);", ""),
        ("index", "fault.counted = true;", ""),
        ("index", "limits.known_sound = is_sound(sample);", "limits.known_sound = true;"),
        ("index", "sound_[i / 64].fetch_or(uint64_t{1} << (i % 64)", "sound_[i / 64].fetch_or(~uint64_t{0}"),
    ]),
    "src/data/device_decoder.cpp": (ON_DEVICE, [
        ("constant", "kBlock = 16, kBeside = 2", "kBlock = 16, kBeside = 0"),
        ("constant", "kBlock = 16, kBeside = 2", "kBlock = 8, kBeside = 2"),
        ("index", "end(wanted.top + wanted.height, size.height) - top", "end(wanted.top + wanted.height, size.height)"),
        ("index", "header.orientation == 1 && size.height", "size.height"),
        ("index", "size.height == header.height && size.width == header.width;", "true;"),
        ("index", "!as_stored || size.bytes() > room", "!as_stored"),
        ("index", "if (scale_of(header, size, wanted.spacing, limits) > 1) return std::nullopt;", ""),
        ("index", "if (!worker.read(sample.content(), region)) return std::nullopt;", "worker.read(sample.content(), region);"),
    ]),
    "src/data/plain_jpeg.cpp": (ON_DEVICE, [
        ("constant", "sampling == 0x21 || sampling == 0x22", "sampling == 0x22"),
        ("constant", "return sampling == 0x11;", "return true;"),
        ("index", "frame[10] == 0x11 &&", ""),
        ("index", "if (too_short_for(file_bytes, big16(frame, 3), big16(frame, 1))) return false;", ""),
        ("sign", "adobe[11] != 1", "adobe[11] == 1"),
        ("index", "if (marker[1] == 0xD9) return true;", "if (marker[1] >= 0xD8) return true;"),
        ("index", "!(restarts && marker[1] >= 0xD0", "!(marker[1] >= 0xD0"),
        ("index", "body[0] == components && quantized && coded &&", "body[0] == components &&"),
        ("index", "body[0] == components && quantized", "quantized"),
        ("index", "components != 0 || !is_plain_frame", "!is_plain_frame"),
    ]),
    "src/data/loader.cpp": (STREAM + ":" + ON_DEVICE, [
        ("constant", "for (int i = 0; i < slots; ++i) slots_", "for (int i = 0; i < options.slots; ++i) slots_"),
        ("barrier", "if (decoder_) context_.copies().wait(slot.released);", ""),
        ("index", "if (copy_watch_) copy_watch_->watch(std::move(begin), slot.copied);", ""),
        ("index", "batch.first_row = rows_.order().first_row();", ""),
        ("index", "rows_.count_bad(slot);", ""),
    ]),
    "src/data/index_cache.cpp": (INDEX, [
        ("index", "file.changed == state.changed && file.bytes == state.bytes", "file.bytes == state.bytes"),
        ("index", "if (!part.empty())", "if (false)"),
    ]),
    "src/data/folder_scan.cpp": (INDEX, [
        ("index", "} else if (entry.is_symlink()) {", "} else if (entry.is_fifo()) {"),
        ("sign", "return !is_above && linked.insert(to).second;", "return linked.insert(to).second;"),
        ("index", "reliable && state.changed < settled_before(now) ?", "reliable || state.changed < settled_before(now) ?"),
        ("sign", "if (folder.changed >= settled_before(now))", "if (folder.changed < 0)"),
        ("sign", "if (!can_keep_index(index)) return walk;", "if (can_keep_index(index) && index.empty()) return walk;"),
        ("index", "std::sort(listing.files.begin(), listing.files.end());", ""),
        ("index", "if (!before || !before->same_as(files.index))", "if (!before)"),
        ("index", "return std::ranges::count(named, true) == static_cast<std::ptrdiff_t>(count) ?", "return count > 0 ?"),
        ("index", "std::ranges::sort(order, {}, [&](uint32_t i) { return names[i]; });", ""),
    ]),
    "src/data/picture_index.cpp": (INDEX, [
        ("constant", "s.header.version != kIndexVersion ||", ""),
        ("sign", "!hashes_fit(s))", "(hashes_fit(s) && false))"),
        ("sign", "file.label >= count", "file.label > count"),
        ("sign", "if (last != nullptr && !(", "if (last != nullptr && false && !("),
        ("constant", "m.height == -1 && m.width == -1", "m.height == -1 || m.width == -1"),
        ("index", "m.place <= kMost &&", "true &&"),
    ]),
    "src/data/archive_index.cpp": (INDEX, [
        ("index", "|| !is_as_before(index->files()[0], state_)", ""),
        ("sign", "state_.changed >= settled_before(now)", "false"),
        ("constant", "m.label >= kMostClasses", "m.label > kMostClasses"),
    ]),
    "src/data/archive_set.cpp": (INDEX, [
        ("index", "fresh_[a] = !known;", "fresh_[a] = 1;"),
        ("index", "].height >= 0) fresh_[s.archive] = 1;", "].height >= 0) fresh_[s.archive] |= 0;"),
        ("sign", "keeps() && archives_[s.archive]->members()[s.member].height < 0)", "keeps())"),
    ]),
}
