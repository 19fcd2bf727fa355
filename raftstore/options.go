package raftstore

import "log/slog"

// Options say where a store lives and what bounds it. Only Dir is required.
type Options struct {
	// Dir holds everything the store keeps. It is made with mode 0700.
	Dir string
	// MemberID names this member for ever; generated and kept in Dir if empty.
	MemberID string
	// Logger, slog.Default() if nil.
	Logger *slog.Logger
}
