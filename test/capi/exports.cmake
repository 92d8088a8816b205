#Fails unless the header's functions, the names in the version script and what the library exports are the same list.
#
#usage : cmake - DLIBRARY = libautoscheme.so - DHEADER = autoscheme.h - DMAP = autoscheme.map - DNM = \
                                                                                   nm - P exports.cmake
file(READ ${HEADER} text) string(REGEX REPLACE
                                 "/[*]([^*]|[*]+[^*/])*[*]+/"
                                 "" text "${text}")
    string(REGEX MATCHALL "AUTOSCHEME_(API|CHECKED)[ \n]+[a-zA-Z0-9_ \n*]*autoscheme_[a-z0-9_]+\\(" calls
                          "${text}") set(declared "") foreach (call IN LISTS calls)
        string(REGEX REPLACE
               ".*[ *\n](autoscheme_[a-z0-9_]+)\\($"
               "\\1" name "${call}") list(APPEND declared ${name}) endforeach() list(SORT declared)

            file(READ ${MAP} text) string(REGEX REPLACE
                                          "#[^\n]*"
                                          "" text "${text}") string(REGEX MATCHALL "autoscheme_[a-z0-9_]+" mapped
                                                                                   "${text}") list(SORT mapped)

                execute_process(COMMAND ${NM} - D-- defined -
                                    only-- format = posix ${LIBRARY} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
                    string(REPLACE
                           "\n"
                           ";" lines "${text}") set(exported "")
                        foreach (line IN LISTS lines) if (line MATCHES
                                                          "^([^ ]+) ([A-Za-z]) " AND NOT CMAKE_MATCH_2 STREQUAL "A") #A
    : the name of a version node string(REGEX REPLACE
                                        "@.*"
                                        "" name "${CMAKE_MATCH_1}") list(APPEND exported ${name}) endif() endforeach()
          list(SORT exported)

              foreach (pair
                       "declared;mapped"
                       "mapped;declared"
                       "declared;exported"
                       "exported;declared") list(GET pair 0 has) list(GET pair 1 lacks) set(difference ${${has}})
                  list(REMOVE_ITEM difference ${${lacks}}) if (difference)
                      message(SEND_ERROR "${has}, but not ${lacks}: ${difference}") endif() endforeach()
                          list(LENGTH declared count) if (count LESS 80)
                              message(SEND_ERROR "found only ${count} functions in ${HEADER}") endif()
                                  message(STATUS "${count} functions are declared, mapped and exported")
