package raftstore

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// identity is who this member is. It never changes: a member that lost its
// directory comes back as another one.
type identity struct {
	ID string `json:"memberID"`
}

const identityName = "member.json"

// loadIdentity reads the identity kept in dir of fs, or makes and keeps one. wanted
// is what the configuration says, "" for anything.
func loadIdentity(fs disk.FS, dir, wanted string) (identity, error) {
	path := filepath.Join(dir, identityName)
	raw, err := disk.ReadFile(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		return makeIdentity(fs, path, wanted)
	}
	if err != nil {
		return identity{}, fmt.Errorf("read member identity: %w", err)
	}
	var id identity
	if err := json.Unmarshal(raw, &id); err != nil || id.ID == "" {
		return identity{}, &disk.DamageError{Path: path, Detail: "it does not say who this member is", Err: err}
	}
	if wanted != "" && wanted != id.ID {
		return identity{}, fmt.Errorf("%s belongs to member %q, the configuration says %q: correct memberID, or give this member an empty directory",
			dir, id.ID, wanted)
	}
	return id, nil
}

func makeIdentity(fs disk.FS, path, wanted string) (identity, error) {
	id := identity{ID: wanted}
	if id.ID == "" {
		id.ID = hex.EncodeToString(randomBytes(8))
	}
	raw, err := json.Marshal(id)
	if err != nil {
		return identity{}, fmt.Errorf("encode member identity: %w", err)
	}
	if err := disk.WriteFile(fs, path, append(raw, '\n')); err != nil {
		return identity{}, fmt.Errorf("keep member identity: %w", err)
	}
	return id, nil
}

// newOrigin names one run of this member in command identities.
func newOrigin() uint64 { return binary.LittleEndian.Uint64(randomBytes(8)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand never fails, it ends the process instead
	return b
}
