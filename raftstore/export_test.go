package raftstore

import (
	"github.com/hashicorp/raft"
)

// Raft gives tests outside of the package the library beneath.
func (s *Store) Raft() *raft.Raft { return s.raft }
