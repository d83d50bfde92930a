/* The version, for the preprocessor of C and C++; CMakeLists.txt reads it here. Until 1.0 a minor version may change
   the interface, a patch never does. */
#ifndef CONVOLT_VERSION_H
#define CONVOLT_VERSION_H

#define CONVOLT_VERSION "0.1.0"
#define CONVOLT_VERSION_MAJOR 0
#define CONVOLT_VERSION_MINOR 1
#define CONVOLT_VERSION_PATCH 0

#endif
