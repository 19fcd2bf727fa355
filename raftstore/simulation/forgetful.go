package simulation

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// forgetful is a member's file system which leaves out of the log's metadata
// what raft keeps there: term and vote. Nothing shows while the process lives.
type forgetful struct{ disk.FS }

const metaMagic = "skiff-log-meta-1\n"

// Rename implements disk.FS: metadata gets its name by it.
func (f forgetful) Rename(from, to string) error {
	if filepath.Base(to) == "meta" {
		if err := f.forget(from); err != nil {
			return err
		}
	}
	return f.FS.Rename(from, to)
}

func (f forgetful) forget(path string) error {
	raw, err := disk.ReadFile(f.FS, path)
	if err != nil {
		return err
	}
	content := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw[len(metaMagic)+4:], &content); err != nil {
		return err
	}
	content["stable"] = json.RawMessage("{}")
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	out := binary.LittleEndian.AppendUint32([]byte(metaMagic), crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	file, err := f.OpenFile(path, os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(out, body...)); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}
