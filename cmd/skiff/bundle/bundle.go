// Package bundle makes one archive of what somebody who looks into a problem
// wants to know of this machine and its cluster: logs, states, configuration.
//
// What could give access to anything is taken out of all of it. Each part is
// gathered by itself, with its own time limit: what cannot be had is said in the
// archive and keeps nothing else from it, so that it works on a machine whose
// cluster does not.
package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/version"
)

const (
	// partLimit is how long one part may take, workers how many are gathered at a time.
	partLimit = 20 * time.Second
	workers   = 4
	// partSize bounds one part, in bytes. Of what is longer the end is kept.
	partSize = 16 << 20
)

// Options of a bundle.
type Options struct {
	up.Layout
	// Kubeconfig of an administrator; this machine's when empty.
	Kubeconfig string
	// Output is the file to make; a name of its own in the working directory when empty.
	Output string
	// Since is how far back the journal is read.
	Since time.Duration
	// AllNamespaces takes the states of pods, services and events of everybody, not
	// of the system's and the default namespace alone.
	AllNamespaces bool
}

// part is one file of the archive.
type part struct {
	name string
	// gather returns the file's contents. What it returns with an error is kept too.
	gather func(ctx context.Context) ([]byte, error)
}

// result is what became of a part.
type result struct {
	part
	data []byte
	err  error
}

// Make makes the archive and says on out what it has and what is missing. The
// file is readable by its owner only.
func Make(ctx context.Context, o Options, out io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	if o.Output == "" {
		o.Output = fmt.Sprintf("skiff-bundle-%s-%s.tar.gz", host, time.Now().UTC().Format("20060102T150405Z"))
	}
	file, err := os.OpenFile(o.Output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the archive: %w; name another file with -o", err)
	}
	fmt.Fprintln(out, "Looking around; this takes up to a minute.")
	parts := append(o.machine(), o.daemons()...)
	parts = append(parts, o.cluster(o.administrator)...)
	results := run(ctx, parts)
	err = errors.Join(ctx.Err(), write(file, results, o, host), file.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write the archive %s: %w", o.Output, err), os.Remove(o.Output))
	}
	missing := 0
	for _, r := range results {
		if r.err != nil {
			missing++
			fmt.Fprintf(out, "  missing  %-28s %s\n", r.name, oneLine(r.err))
		}
	}
	fmt.Fprintf(out, "%s has %d parts, without keys, tokens and passwords; %d could not be had whole (errors.txt).\n", o.Output, len(results), missing)
	if os.Geteuid() != 0 {
		fmt.Fprintln(out, "Others than root see less: run it with sudo for all of it.")
	}
	fmt.Fprintln(out, "Look into it before you hand it to anybody: it names your machines, addresses, images and workloads.")
	return nil
}

// run gathers the parts, some at a time, each within its limit.
func run(ctx context.Context, parts []part) []result {
	results := make([]result, len(parts))
	var group errgroup.Group
	group.SetLimit(workers)
	for i, p := range parts {
		group.Go(func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, partLimit, fmt.Errorf("not within %s", partLimit))
			defer cancel()
			data, err := p.gather(ctx)
			if err != nil && ctx.Err() != nil {
				err = errors.Join(context.Cause(ctx), err)
			}
			results[i] = result{part: p, data: data, err: err}
			return nil // a part that is missing stops no other
		})
	}
	_ = group.Wait()
	return results
}

// write writes the archive. Nothing comes into it but through the redactor.
func write(w io.Writer, results []result, o Options, host string) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	hide := newRedactor(o.Layout)
	now := time.Now()
	folder := strings.TrimSuffix(filepath.Base(o.Output), ".tar.gz")
	add := func(name string, data []byte) error {
		data = hide.bytes(data)
		header := &tar.Header{Name: folder + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: now}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	var missing bytes.Buffer
	var names []string
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(&missing, "%s: %v\n\n", r.name, r.err)
		}
		if len(r.data) == 0 {
			continue
		}
		names = append(names, r.name)
		data := r.data
		if len(data) > partSize {
			data = data[len(data)-partSize:]
			fmt.Fprintf(&missing, "%s: longer than %d MiB; its end was kept\n\n", r.name, partSize>>20)
		}
		if err := add(r.name, data); err != nil {
			return err
		}
	}
	return errors.Join(add("errors.txt", missing.Bytes()), add("README", readme(o, host, now, names)), archive.Close(), compressed.Close())
}

// readme says what the archive has.
func readme(o Options, host string, now time.Time, names []string) []byte {
	var b bytes.Buffer
	namespaces := "the system's and the default namespace"
	if o.AllNamespaces {
		namespaces = "all namespaces"
	}
	fmt.Fprintf(&b, `Skiff %s, machine %s, %s, gathered by user id %d below %s.

Logs go back %s under systemd, otherwise as far as their files. States of pods,
services and events are of %s. Never here: Secrets, data of
ConfigMaps, values of containers' environments, their commands, private keys,
tokens and passwords; what looks like one is replaced by [removed]. errors.txt says
what could not be had, and why.

`, version.Version, host, now.UTC().Format(time.RFC3339), os.Geteuid(), o.Root, o.Since, namespaces)
	b.WriteString(strings.Join(slices.Sorted(slices.Values(names)), "\n") + "\n")
	return b.Bytes()
}

// oneLine is an error in one line of a screen.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	const longest = 160
	if len(text) > longest {
		text = text[:longest] + "..."
	}
	return string(newRedactor(up.Layout{Root: "/nonexistent"}).bytes([]byte(text)))
}
