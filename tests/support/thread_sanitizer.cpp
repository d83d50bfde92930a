// The count of an exception's owners lives in libstdc++, which is not instrumented: ThreadSanitizer does not see that the thread which lets go
// last comes after the others.
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions() { return "race:std::__exception_ptr::exception_ptr::_M_release\n"; }
#endif
