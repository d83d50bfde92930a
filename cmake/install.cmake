# cmake --install BUILD --prefix PREFIX: libraries, headers, the program, a CMake package (find_package(convolt), then
# convolt::convolt) and convolt.pc.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(CONVOLT_LIBRARIES GLOBAL PROPERTY CONVOLT_LIBRARIES)
install(TARGETS convolt ${CONVOLT_LIBRARIES} EXPORT convoltTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS convolt_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/convolt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/convolt)
install(EXPORT convoltTargets NAMESPACE convolt:: DESTINATION ${package})
list(JOIN CONVOLT_OPENCV " " CONVOLT_OPENCV_COMPONENTS)
configure_package_config_file(cmake/convoltConfig.cmake.in ${CMAKE_BINARY_DIR}/convoltConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/convoltConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/convoltConfig.cmake ${CMAKE_BINARY_DIR}/convoltConfigVersion.cmake DESTINATION ${package})

# The libraries from the top of the house to the bottom, then what they need.
list(REVERSE CONVOLT_LIBRARIES)
list(TRANSFORM CONVOLT_LIBRARIES PREPEND -l)
list(JOIN CONVOLT_LIBRARIES " " CONVOLT_PC_LIBRARIES)
list(REVERSE CONVOLT_OPENCV_TARGETS)
list(TRANSFORM CONVOLT_OPENCV_TARGETS PREPEND -l OUTPUT_VARIABLE CONVOLT_PC_OPENCV)
list(JOIN CONVOLT_PC_OPENCV " " CONVOLT_PC_OPENCV)
set(CONVOLT_PC_OTHERS "${CONVOLT_PC_OPENCV} -ljpeg -lpng -lgif -lwebpdemux -lwebp -larchive -lzip -lz -lfmt -ldnnl")
if(CONVOLT_OPENMP)
  string(APPEND CONVOLT_PC_OTHERS " -lgomp")
endif()
if(CONVOLT_WITH_CUDA)
  string(APPEND CONVOLT_PC_OTHERS " ${CONVOLT_CUDART} -ldl -lrt")
endif()
# From where convolt.pc lies, so that the tree can be moved.
file(RELATIVE_PATH CONVOLT_PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/convolt.pc.in ${CMAKE_BINARY_DIR}/convolt.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/convolt.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
