// What ThreadSanitizer cannot see, since the libraries are not instrumented.
//
// The count of an exception's owners lives in libstdc++: that the thread which lets go last comes after the others is
// not seen. Debian's OpenCV initialises GDAL at the first imdecode or imencode, and GDAL takes two of its own mutexes
// in both orders there; neither is ever held while our code runs.
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n"
         "deadlock:libgdal.so\n";
}
#endif
