/* The version, for the preprocessor of C and C++; CMakeLists.txt reads it here. Until 1.0 a minor version may change
   the interface, a patch never does. */
#ifndef CONVOLT_VERSION_H
#define CONVOLT_VERSION_H

#define CONVOLT_VERSION_MAJOR 0
#define CONVOLT_VERSION_MINOR 1
#define CONVOLT_VERSION_PATCH 0

#define CONVOLT_TEXT_OF_(a, b, c) #a "." #b "." #c
#define CONVOLT_TEXT_(a, b, c) CONVOLT_TEXT_OF_(a, b, c)
/* "0.1.0" */
#define CONVOLT_VERSION CONVOLT_TEXT_(CONVOLT_VERSION_MAJOR, CONVOLT_VERSION_MINOR, CONVOLT_VERSION_PATCH)

#endif
