// cv::imdecode and cv::imencode, whose library is loaded when the first picture needs it: Debian's brings a hundred
// others (GDAL, HDF5, databases ...), which every start of a program would wait for, and hardly any picture needs.
#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

namespace convolt {

// As cv::imdecode(bytes, flags): an empty matrix where OpenCV cannot decode them. `flags`: of cv::ImreadModes. Throws
// Error where OpenCV's library is not there. Any thread may call it.
cv::Mat opencv_imdecode(const cv::Mat& bytes, int flags);

// As cv::imencode(extension, picture, bytes, parameters), `parameters` of cv::ImwriteFlags: the file's bytes. Throws
// Error where OpenCV cannot write such pictures or its library is not there. Any thread may call it.
std::vector<uint8_t> opencv_imencode(const std::string& extension, const cv::Mat& picture,
                                     const std::vector<int>& parameters = {});

}  // namespace convolt
