/* Extended attributes: no file has any. Compared with .expected. */
#include "guests.h"
#include <sys/xattr.h>

int main(void) {
    scratch();
    file_with("f", "x");
    char list[64];
    int fd = open("f", O_RDWR);
    value("setxattr", setxattr("f", "user.name", "v", 1, 0));
    value("lsetxattr", lsetxattr("f", "user.name", "v", 1, 0));
    value("fsetxattr", fsetxattr(fd, "user.name", "v", 1, 0));
    value("getxattr", getxattr("f", "user.name", list, sizeof list));
    value("lgetxattr", lgetxattr("f", "user.name", list, sizeof list));
    value("fgetxattr", fgetxattr(fd, "user.name", list, sizeof list));
    value("listxattr", listxattr("f", list, sizeof list));
    value("llistxattr", llistxattr("f", list, sizeof list));
    value("flistxattr", flistxattr(fd, list, sizeof list));
    value("removexattr", removexattr("f", "user.name"));
    value("lremovexattr", lremovexattr("f", "user.name"));
    value("fremovexattr", fremovexattr(fd, "user.name"));
    value("getxattr of nothing", getxattr("absent", "user.name", list, sizeof list));
    value("listxattr of nothing", listxattr("absent", list, sizeof list));
    value("flistxattr of a closed one", flistxattr(900, list, sizeof list));
    return 0;
}
