package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/images"
)

// PullImage pulls an image and unpacks it, and returns its ID. Simultaneous pulls of one image are one pull.
func (r *Runtime) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	return r.images.Pull(ctx, image.GetImage(), auth)
}

// ImageStatus returns an image by name, digest or ID; Image is nil when it is not here.
func (r *Runtime) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	found, err := r.images.Get(ctx, image.GetImage())
	if errors.Is(err, images.ErrNotFound) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ImageStatusResponse{Image: criImage(found)}, nil
}

// ListImages lists the images that match the filter.
func (r *Runtime) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	if name := filter.GetImage().GetImage(); name != "" {
		status, err := r.ImageStatus(ctx, filter.GetImage(), false)
		if err != nil || status.GetImage() == nil {
			return nil, err
		}
		return []*runtimeapi.Image{status.GetImage()}, nil
	}
	var list []*runtimeapi.Image
	for _, image := range r.images.List() {
		list = append(list, criImage(image))
	}
	return list, nil
}

// RemoveImage removes an image with all its names. It may be repeated.
func (r *Runtime) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	return r.images.Remove(ctx, image.GetImage())
}

// ImageFsInfo returns the use of the filesystem that holds images and containers' layers.
func (r *Runtime) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	usage, err := r.disk.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("image file system: %w", err)
	}
	fs := &runtimeapi.FilesystemUsage{
		Timestamp: usage.At.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: r.imageFs},
		UsedBytes: count(usage.Bytes), InodesUsed: count(usage.Inodes),
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     []*runtimeapi.FilesystemUsage{fs},
		ContainerFilesystems: []*runtimeapi.FilesystemUsage{fs},
	}, nil
}

func criImage(i *images.Image) *runtimeapi.Image {
	image := &runtimeapi.Image{Id: i.ID, RepoTags: i.Tags(), RepoDigests: i.Digests(), Size: i.Size, Pinned: i.Pinned, Spec: &runtimeapi.ImageSpec{}}
	user, _, _ := strings.Cut(i.Config.User, ":")
	if user == "" {
		user = "0"
	}
	// runAsNonRoot is judged by a number; a name cannot be.
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		image.Uid = &runtimeapi.Int64Value{Value: uid}
	} else {
		image.Username = user
	}
	return image
}

func count(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
