package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
)

// hostPathKind is a file or directory of the node. It is checked, or made when
// its type says so, and never removed.
func hostPathKind() kind {
	return kind{
		matches: func(v *v1.Volume) bool { return v.HostPath != nil },
		setUp: func(_ context.Context, r *request) (time.Time, error) {
			return time.Time{}, checkHostPath(r.volume.HostPath)
		},
	}
}

func checkHostPath(source *v1.HostPathVolumeSource) error {
	if source.Type == nil || *source.Type == v1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(source.Path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch *source.Type {
	case v1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(source.Path, 0o755)
		}
		return expect(source.Path, info, err, "directory", func(m fs.FileMode) bool { return m.IsDir() })
	case v1.HostPathDirectory:
		return expect(source.Path, info, err, "directory", func(m fs.FileMode) bool { return m.IsDir() })
	case v1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(source.Path, os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		return expect(source.Path, info, err, "file", func(m fs.FileMode) bool { return !m.IsDir() })
	case v1.HostPathFile:
		return expect(source.Path, info, err, "file", func(m fs.FileMode) bool { return !m.IsDir() })
	case v1.HostPathSocket:
		return expect(source.Path, info, err, "socket file", func(m fs.FileMode) bool { return m&fs.ModeSocket != 0 })
	case v1.HostPathCharDev:
		return expect(source.Path, info, err, "character device", func(m fs.FileMode) bool { return m&fs.ModeCharDevice != 0 })
	case v1.HostPathBlockDev:
		return expect(source.Path, info, err, "block device", func(m fs.FileMode) bool { return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0 })
	}
	return fmt.Errorf("%s is an invalid volume type", *source.Type)
}

func expect(path string, info fs.FileInfo, err error, what string, fits func(fs.FileMode) bool) error {
	if err != nil || !fits(info.Mode()) {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", path, what)
	}
	return nil
}
