package raftstore

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// identity is who this member is and which cluster it belongs to. A member
// that lost its directory comes back as another one.
type identity struct {
	// ID never changes.
	ID string `json:"memberID"`
	// ClusterID is made when a cluster is founded, restored or recovered and
	// kept by each of its members; empty while a member waits to be added.
	// Members of different clusters do not talk to each other, even if their
	// certificates would let them.
	ClusterID string `json:"clusterID,omitempty"`
	// Joins says that this member was made to join a cluster: it never founds one,
	// whatever the configuration says later.
	Joins bool `json:"joins,omitempty"`
	// Replaces is the member, damaged, in whose place this one came: the first
	// of several, which is the one that a configuration may still name.
	Replaces string `json:"replaces,omitempty"`
	// Removed says that the cluster removed this member.
	Removed bool `json:"removed,omitempty"`
}

const (
	identityName = "member.json"
	// restoringName marks a directory in which a restore was interrupted.
	restoringName = "restoring"
)

// loadIdentity reads the identity kept in dir of fs, or makes and keeps one. wanted
// is what the configuration says, "" for anything; join says that a new member
// founds no cluster.
func loadIdentity(fs disk.FS, dir, wanted string, join bool) (identity, error) {
	if _, err := disk.ReadFile(fs, filepath.Join(dir, restoringName)); err == nil {
		return identity{}, fmt.Errorf("%s holds a restore that was interrupted: restore the snapshot again, or empty the directory", dir)
	}
	id, err := readIdentity(fs, dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := orphaned(fs, dir); err != nil {
			return identity{}, err
		}
		id = newIdentity(wanted)
		if join {
			id.ClusterID, id.Joins = "", true
		}
		return id, id.keep(fs, dir)
	}
	if err != nil {
		return identity{}, err
	}
	if err := replacementPending(fs, dir, id); err != nil {
		return identity{}, err
	}
	if wanted != "" && wanted != id.ID && wanted != id.Replaces {
		return identity{}, fmt.Errorf("%s belongs to member %q, the configuration says %q: correct memberID, or give this member an empty directory",
			dir, id.ID, wanted)
	}
	if id.ClusterID == "" && !id.Joins {
		id.ClusterID = newID()
		return id, id.keep(fs, dir)
	}
	return id, nil
}

// EnsureMember returns the id of the member whose store is, or will be, in dir:
// for whoever needs it before Open, to make its certificate or to announce it.
// Where there is none yet it makes and keeps one as Open would, with the same
// Options.MemberID and Options.Join.
func EnsureMember(dir, memberID string, join bool) (string, error) {
	if err := disk.MakeDir(disk.OS, dir); err != nil {
		return "", fmt.Errorf("name the store's member: %w", err)
	}
	id, err := loadIdentity(disk.OS, dir, memberID, join)
	if err != nil {
		return "", fmt.Errorf("name the store's member: %w", err)
	}
	return id.ID, nil
}

// MemberID returns the id of the member whose store is in dir; os.ErrNotExist if
// there is none.
func MemberID(dir string) (string, error) {
	id, err := readIdentity(disk.OS, dir)
	return id.ID, err
}

// readIdentity reads the identity kept in dir; os.ErrNotExist if there is none.
func readIdentity(fs disk.FS, dir string) (identity, error) {
	path := filepath.Join(dir, identityName)
	raw, err := disk.ReadFile(fs, path)
	if err != nil {
		return identity{}, fmt.Errorf("read member identity: %w", err)
	}
	var kept keptIdentity
	if err := json.Unmarshal(raw, &kept); err != nil || kept.ID == "" {
		return identity{}, &disk.DamageError{Path: path, Detail: "it does not say who this member is", Err: err}
	}
	if sum, err := kept.identity.sum(); err != nil || sum != kept.Sum {
		return identity{}, &disk.DamageError{Path: path, Detail: "its checksum does not match", Err: err}
	}
	return kept.identity, nil
}

// keptIdentity is the content of member.json.
type keptIdentity struct {
	identity
	// Sum is the CRC-32C of the rest: a flipped bit makes another member.
	Sum string `json:"sum"`
}

func (id identity) sum() (string, error) {
	raw, err := json.Marshal(id)
	return fmt.Sprintf("%08x", crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))), err
}

// orphaned tells a new directory from one that has lost its identity: its log
// must not become that of another member.
func orphaned(fs disk.FS, dir string) error {
	for _, folder := range []string{logDir, snapshotDir} {
		names, err := fs.ReadDir(filepath.Join(dir, folder))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look for a member's files: %w", err)
		}
		if len(names) > 0 {
			return &disk.DamageError{Path: filepath.Join(dir, identityName), Detail: fmt.Sprintf("it is missing although %s exists", filepath.Join(folder, names[0]))}
		}
	}
	return nil
}

// newIdentity is a member which founds a cluster, with the wanted name if any.
func newIdentity(wanted string) identity {
	id := identity{ID: wanted, ClusterID: newID()}
	if id.ID == "" {
		id.ID = newID()
	}
	return id
}

// keep writes the identity into dir.
func (id identity) keep(fs disk.FS, dir string) error {
	sum, err := id.sum()
	if err != nil {
		return fmt.Errorf("encode member identity: %w", err)
	}
	raw, err := json.Marshal(keptIdentity{id, sum})
	if err != nil {
		return fmt.Errorf("encode member identity: %w", err)
	}
	if err := disk.WriteFile(fs, filepath.Join(dir, identityName), append(raw, '\n')); err != nil {
		return fmt.Errorf("keep member identity: %w", err)
	}
	return nil
}

// newID names a member or a cluster.
func newID() string { return hex.EncodeToString(randomBytes(8)) }

// newOrigin names one run of this member in command identities.
func newOrigin() uint64 { return binary.LittleEndian.Uint64(randomBytes(8)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand never fails, it ends the process instead
	return b
}
