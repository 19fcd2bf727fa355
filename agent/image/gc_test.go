package image

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// shelf holds images on a real disk, and containers.
type shelf struct {
	dir        string
	images     []*runtimeapi.Image
	containers []*runtimeapi.Container
	removed    []string
}

func (s *shelf) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return slices.Clone(s.images), nil
}

func (s *shelf) RemoveImage(_ context.Context, image *runtimeapi.ImageSpec) error {
	s.removed = append(s.removed, image.GetImage())
	s.images = slices.DeleteFunc(s.images, func(i *runtimeapi.Image) bool { return i.GetId() == image.GetImage() })
	return nil
}

func (s *shelf) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: s.dir}}}}, nil
}

func (s *shelf) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return s.containers, nil
}

func (s *shelf) add(ids ...string) {
	for _, id := range ids {
		s.images = append(s.images, &runtimeapi.Image{Id: id, Size: 1, Pinned: id == "pinned"})
	}
}

func (s *shelf) use(ids ...string) {
	s.containers = nil
	for _, id := range ids {
		s.containers = append(s.containers, &runtimeapi.Container{ImageId: id})
	}
}

// full counts every disk as too full, and never as empty enough.
func full() Policy { return Policy{High: 0, Low: 0, MinimumAge: 2 * time.Minute} }

func TestImagesGoWhenTheDiskIsFullTheLongestUnusedFirst(t *testing.T) {
	t.Parallel()
	s, log := &shelf{dir: t.TempDir()}, &events{}
	c := NewCollector(s, full(), nil, log, &v1.ObjectReference{}, slog.New(slog.DiscardHandler))
	check := func(minute int, want ...string) {
		t.Helper()
		s.removed = nil
		if err := c.check(t.Context(), time.Unix(int64(minute*60), 0)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.removed, want) {
			t.Fatalf("in minute %d %q went, want %q", minute, s.removed, want)
		}
	}
	s.add("early", "late", "used", "pinned")
	s.use("early", "late", "used")
	check(1)
	s.use("late", "used")
	c.policy.High = 100 // the disk is not full, but looked at
	check(5)
	c.policy = full()
	s.add("new")
	s.use("used")
	check(10, "early", "late")
	check(11)
	check(12, "new")
	if len(log.lines) == 0 || log.lines[0][:len("FreeDiskSpaceFailed")] != "FreeDiskSpaceFailed" {
		t.Errorf("what could not be freed is told: %q", log.lines)
	}
}

func TestImagesGoWhenTheyAreUnusedForLong(t *testing.T) {
	t.Parallel()
	s := &shelf{dir: t.TempDir()}
	c := NewCollector(s, Policy{High: 100, Low: 80, MaximumAge: time.Hour}, nil, &events{}, &v1.ObjectReference{}, slog.New(slog.DiscardHandler))
	began := c.began
	check := func(after time.Duration, want ...string) {
		t.Helper()
		s.removed = nil
		if err := c.check(t.Context(), began.Add(after)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.removed, want) {
			t.Fatalf("after %s %q went, want %q", after, s.removed, want)
		}
	}
	s.add("never", "once", "always", "pinned")
	s.use("once", "always")
	check(0)
	check(30 * time.Minute)
	s.use("always")
	check(time.Hour)
	check(61*time.Minute, "never")
	check(91*time.Minute, "once")
	check(10 * time.Hour)
}

func TestADiskThatIsNotFullKeepsItsImages(t *testing.T) {
	t.Parallel()
	s := &shelf{dir: t.TempDir()}
	s.add("a")
	for _, p := range []Policy{{High: 100, Low: 80}, {High: 101, Low: 100}} {
		c := NewCollector(s, p, nil, &events{}, &v1.ObjectReference{}, slog.New(slog.DiscardHandler))
		if err := c.check(t.Context(), time.Now()); err != nil || len(s.removed) > 0 {
			t.Errorf("%+v: %q went, %v", p, s.removed, err)
		}
	}
}
