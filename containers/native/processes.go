package native

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/moby/sys/user"

	"platelayer/containers"
)

// Processes lists a container's processes by their pids on the machine. A
// container that is gone is os.ErrNotExist. A pid that two calls both list was
// the container's all the while between.
func Processes(cgroup string) ([]int, error) {
	if err := checkCgroup(cgroup); err != nil {
		return nil, err
	}
	listed, err := pidsIn(filepath.Join(findHierarchies().home(), cgroup))
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes of %s: %w", path.Base(cgroup), err)
	}
	var pids []int
	for _, text := range listed {
		if pid, err := strconv.Atoi(text); err == nil && pid > 0 { // 0 is in a pid namespace beside ours
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// UserNames reads how the passwd in a running container's root calls its users.
// The container wrote it: the names may hold anything.
func UserNames(ref containers.ProcessRef) (map[int]string, error) {
	root, err := OpenRoot(ref)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	passwd, err := readIn(int(root.Fd()), "/etc/passwd", maxUserFile)
	if err != nil {
		return nil, err
	}
	users, err := user.ParsePasswd(bytes.NewReader(passwd))
	if err != nil {
		return nil, fmt.Errorf("cannot read /etc/passwd: %w", err)
	}
	names := map[int]string{}
	for _, u := range users {
		if _, twice := names[u.Uid]; !twice {
			names[u.Uid] = u.Name
		}
	}
	return names, nil
}
