package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	continuityfs "github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User is who a process runs as.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups, the primary one included: without it a
	// program could escape a file mode that denies that group.
	Groups []uint32
}

// UserKey says which User a container gets from an image: two containers of one
// image with the same key run as the same user.
func UserKey(sc *runtimeapi.LinuxContainerSecurityContext, image ocispec.ImageConfig) (string, error) {
	name, group, err := wanted(sc, image)
	return fmt.Sprintf("%s:%s:%v:%v", name, group, sc.GetSupplementalGroups(), sc.GetSupplementalGroupsPolicy()), err
}

// wanted is the user and the group asked for, by name or number; the pod's word overrides the image's.
func wanted(sc *runtimeapi.LinuxContainerSecurityContext, image ocispec.ImageConfig) (name, group string, err error) {
	if uid := sc.GetRunAsUser(); uid != nil {
		name = strconv.FormatInt(uid.GetValue(), 10)
	}
	if sc.GetRunAsUsername() != "" {
		name = sc.GetRunAsUsername()
	}
	if gid := sc.GetRunAsGroup(); gid != nil {
		group = strconv.FormatInt(gid.GetValue(), 10)
		if name == "" {
			return "", "", fmt.Errorf("user group %q is specified without user", group)
		}
	}
	if name == "" {
		name, group, _ = strings.Cut(image.User, ":")
	}
	return name, group, nil
}

// ResolveUser finds the user in the image's /etc/passwd and /etc/group. root is
// where the image's file system is mounted.
func ResolveUser(root string, sc *runtimeapi.LinuxContainerSecurityContext, image ocispec.ImageConfig) (User, error) {
	name, group, err := wanted(sc, image)
	if err != nil {
		return User{}, err
	}
	passwd, err := readIn(root, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	groups, err := readIn(root, "/etc/group")
	if err != nil {
		return User{}, err
	}
	found, err := user.GetExecUser(name, nil, reader(passwd), reader(groups))
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", name, err)
	}
	u := User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	if group != "" {
		with, err := user.GetExecUser(name+":"+group, nil, reader(passwd), reader(groups))
		if err != nil {
			return User{}, fmt.Errorf("group %q: %w", group, err)
		}
		u.GID = uint32(with.Gid)
	}
	u.add(u.GID)
	if sc.GetSupplementalGroupsPolicy() != runtimeapi.SupplementalGroupsPolicy_Strict {
		for _, gid := range found.Sgids {
			u.add(uint32(gid))
		}
	}
	for _, gid := range sc.GetSupplementalGroups() {
		u.add(uint32(gid))
	}
	return u, nil
}

func (u *User) add(gid uint32) {
	for _, have := range u.Groups {
		if have == gid {
			return
		}
	}
	u.Groups = append(u.Groups, gid)
}

// reader hides a missing file behind nil, which GetExecUser takes for an empty one.
func reader(content []byte) io.Reader {
	if content == nil {
		return nil
	}
	return bytes.NewReader(content)
}

// maxAccounts bounds what an image can make us read.
const maxAccounts = 10 << 20

// readIn reads a file of the image, following its links inside the image only.
func readIn(root, name string) ([]byte, error) {
	path, err := continuityfs.RootPath(root, name)
	if err != nil {
		return nil, fmt.Errorf("find %s in the image: %w", name, err)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(f, maxAccounts))
}
