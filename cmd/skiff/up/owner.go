package up

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Where systemd's unit runs skiff-control as a user of its own, that user gets
// what the daemon has to read and write, and nothing more:
//
//	/etc/skiff                    root   root    0755
//	/etc/skiff/control.yaml       root   USER's  0640
//	/etc/skiff/pki                USER   root    02710  it renews certificates; root's group finds what is for it
//	/etc/skiff/pki/proxy.conf     USER   root    0640   the proxy is root without the right to read everything
//	/etc/skiff/pki/...            USER   root    0600
//	/etc/skiff/{admin,agent,proxy}.conf                 links to the files in pki
//	/var/lib/skiff                root   USER's  0710
//	/var/lib/skiff/control/...    USER   USER's  0600
//
// The kubeconfigs lie in pki because they are replaced by renaming, and the user
// shall not be able to do that in /etc/skiff, where root's configuration is. On
// machines without that user everything is root's, but under systemd the
// kubeconfigs lie there too: what a hardened unit may write is one folder.
const (
	etcMode     fs.FileMode = 0o755
	pkiMode     fs.FileMode = 0o710 | fs.ModeSetgid
	dataMode    fs.FileMode = 0o710
	controlMode fs.FileMode = 0o700
	// sharedMode is that of a file which a daemon of another user reads.
	sharedMode fs.FileMode = 0o640
)

// account is a user and its group.
type account struct{ user, group int }

// controlAccount is that of skiff-control's unit; root's where it says nothing else.
func controlAccount() (account, error) {
	output, err := exec.Command("systemctl", "show", "--property", "User", "--value", unit("control")).Output()
	name := strings.TrimSpace(string(output))
	if err != nil || name == "" || name == "root" {
		return account{}, nil // without the unit there is no other user
	}
	found, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("the user of %s: %w; systemd-sysusers makes it from /usr/lib/sysusers.d", unit("control"), err)
	}
	a := account{}
	var userErr, groupErr error
	a.user, userErr = strconv.Atoi(found.Uid)
	a.group, groupErr = strconv.Atoi(found.Gid)
	if err := errors.Join(userErr, groupErr); err != nil {
		return account{}, fmt.Errorf("the user %s of %s: %w", name, unit("control"), err)
	}
	return a, nil
}

// handOver gives the users of systemd's units what is theirs. It is done again
// whenever a command of root's may have written something. Without systemd it
// does nothing.
func (o *Options) handOver() error {
	if !o.systemd() {
		return nil
	}
	a, err := controlAccount()
	if err == nil {
		err = o.handOverTo(a)
	}
	if err != nil {
		return fmt.Errorf("give the daemons their files: %w", err)
	}
	return nil
}

// handOverTo gives the account what is the control daemon's.
func (o *Options) handOverTo(a account) error {
	if err := o.linkKubeconfigs(); err != nil || a == (account{}) {
		return err
	}
	control := filepath.Join(o.Data(), "control")
	for _, folder := range []struct {
		path string
		account
		mode fs.FileMode
	}{
		{o.path("etc/skiff"), account{}, etcMode},
		{o.PKI(), account{user: a.user}, pkiMode},
		{o.Data(), account{group: a.group}, dataMode},
		{control, a, controlMode},
	} {
		if err := os.MkdirAll(folder.path, folder.mode.Perm()); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(folder.path, folder.user, folder.group), os.Chmod(folder.path, folder.mode)); err != nil {
			return err
		}
	}
	if err := errors.Join(ownAll(o.PKI(), account{user: a.user}), ownAll(control, a)); err != nil {
		return err
	}
	return errors.Join(
		share(o.path("etc/skiff"), filepath.Base(o.UserConfig("control")), account{group: a.group}),
		share(o.PKI(), filepath.Base(o.Kubeconfig("proxy")), account{user: a.user}),
	)
}

// linkKubeconfigs moves the kubeconfigs into the folder of certificates and
// leaves links. At any moment each path leads to a whole file.
func (o *Options) linkKubeconfigs() error {
	for _, path := range []string{o.AdminKubeconfig(), o.Kubeconfig("agent"), o.Kubeconfig("proxy")} {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Type() == fs.ModeSymlink {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(o.PKI(), controlMode); err != nil {
			return err
		}
		target := filepath.Join(o.PKI(), filepath.Base(path))
		link := path + ".new"
		for _, former := range []string{target, link} {
			if err := os.Remove(former); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		name, err := filepath.Rel(filepath.Dir(path), target)
		if err != nil {
			return err
		}
		if err := errors.Join(os.Link(path, target), os.Symlink(name, link)); err != nil {
			return err
		}
		if err := os.Rename(link, path); err != nil {
			return err
		}
	}
	return nil
}

// ownAll gives everything in the folder to the account. Whoever owns the folder
// may change it meanwhile: nothing outside is reached through it.
func ownAll(folder string, a account) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running daemon removed it
		}
		if err != nil || path == "." {
			return err
		}
		if err := root.Lchown(path, a.user, a.group); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// share lets a group read a file, if it is there.
func share(folder, name string, a account) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	err = root.Lchown(name, a.user, a.group)
	if err == nil {
		err = root.Chmod(name, sharedMode)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
