package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/event"
)

const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
	// visibleError is how long ErrImagePull is shown before the back-off is.
	visibleError = 2 * time.Second
)

// Runtime is what pulling needs of the runtime.
type Runtime interface {
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error)
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, podSandboxConfig *runtimeapi.PodSandboxConfig) (string, error)
}

// Image is an image that is on the node.
type Image struct {
	// Ref is what containers are made from.
	Ref string
	// User is the numeric user the image wants to run as, Username a named one.
	User     *int64
	Username string
}

// Failure says why a container has no image.
type Failure struct {
	Reason, Message string
	RetryAt         time.Time
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Message }

// Puller makes sure images are present.
type Puller struct {
	Options
	slots chan struct{} // nil: any number
	rate  *rate.Limiter // nil: any rate

	// mu guards backoff, whose key is pod UID and image.
	mu      sync.Mutex
	backoff map[string]*backoff
}

// Options of a Puller.
type Options struct {
	Runtime Runtime
	Events  event.Recorder
	Now     func() time.Time
	Keyring *Keyring
	// Records may be nil: then every pod may use every image that is present.
	Records *Records
	// Parallel pulls are under way at most; 0 for any number.
	Parallel int
	// PerSecond pulls begin on average, after a Burst; 0 for any number.
	PerSecond, Burst int
}

type backoff struct {
	delay time.Duration
	until time.Time
	cause string
}

// NewPuller returns a puller.
func NewPuller(o Options) *Puller {
	p := &Puller{Options: o, backoff: map[string]*backoff{}}
	if o.Parallel > 0 {
		p.slots = make(chan struct{}, o.Parallel)
	}
	if o.PerSecond > 0 {
		p.rate = rate.NewLimiter(rate.Limit(o.PerSecond), max(o.Burst, 1))
	}
	return p
}

// Ensure makes the container's image present as its pull policy demands. The
// error is a *Failure unless ctx ended.
func (p *Puller) Ensure(ctx context.Context, pod *v1.Pod, container *v1.Container, secrets []*v1.Secret, sandbox *runtimeapi.PodSandboxConfig) (Image, error) {
	ref := event.Container(pod, container.Name)
	name, err := withTag(container.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", container.Image, err)
		p.Events.Eventf(ref, v1.EventTypeWarning, event.InspectFailed, "%s", message)
		return Image{}, &Failure{Reason: "InvalidImageName", Message: message, RetryAt: p.Now().Add(firstBackoff)}
	}
	spec := &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: container.Image, Annotations: pod.Annotations}
	credentials := sync.OnceValues(func() ([]Credential, error) { return p.Keyring.Lookup(ctx, pod, secrets, name) })
	if container.ImagePullPolicy != v1.PullAlways {
		image, found, err := p.inspect(ctx, spec)
		if err != nil {
			message := fmt.Sprintf("Failed to inspect image %q: %v", container.Image, err)
			p.Events.Eventf(ref, v1.EventTypeWarning, event.InspectFailed, "%s", message)
			return Image{}, &Failure{Reason: "ImageInspectError", Message: message, RetryAt: p.Now().Add(firstBackoff)}
		}
		if found && p.Records != nil {
			mustPull, err := p.Records.MustPull(container.Image, image.Ref, credentials)
			if err != nil {
				return Image{}, &Failure{Reason: "ErrImagePull", Message: err.Error(), RetryAt: p.Now().Add(firstBackoff)}
			}
			found = !mustPull
		}
		if found {
			p.Events.Eventf(ref, v1.EventTypeNormal, event.Pulled, "Container image %q already present on machine and can be accessed by the pod", container.Image)
			return image, nil
		}
		if container.ImagePullPolicy == v1.PullNever {
			// Also of an image that is present, but not for this pod: whether it is present is not told.
			message := fmt.Sprintf("Container image %q is not present with pull policy of Never", container.Image)
			p.Events.Eventf(ref, v1.EventTypeWarning, event.ErrImageNeverPull, "%s", message)
			return Image{}, &Failure{Reason: "ErrImageNeverPull", Message: message, RetryAt: p.Now().Add(firstBackoff)}
		}
	}
	key := string(pod.UID) + "_" + container.Image
	if failure := p.held(key, container.Image); failure != nil {
		p.Events.Eventf(ref, v1.EventTypeNormal, event.BackOff, "Back-off pulling image %q", container.Image)
		return Image{}, failure
	}
	list, err := credentials()
	if err != nil {
		return Image{}, &Failure{Reason: "ErrImagePull", Message: err.Error(), RetryAt: p.Now().Add(firstBackoff)}
	}
	if p.Records != nil {
		if err := p.Records.Begin(container.Image); err != nil {
			message := fmt.Sprintf("Failed to record image pull intent for container image %q: %v", container.Image, err)
			return Image{}, &Failure{Reason: "ErrImagePull", Message: message, RetryAt: p.Now().Add(firstBackoff)}
		}
	}
	image, used, err := p.pull(ctx, ref, key, spec, container.Image, list, sandbox)
	if p.Records != nil {
		p.Records.End(container.Image, image.Ref, used)
	}
	return image, err
}

// pull returns the credential that worked, nil for none.
func (p *Puller) pull(ctx context.Context, ref *v1.ObjectReference, key string, spec *runtimeapi.ImageSpec, name string, credentials []Credential, sandbox *runtimeapi.PodSandboxConfig) (Image, *Credential, error) {
	p.Events.Eventf(ref, v1.EventTypeNormal, event.Pulling, "Pulling image %q", name)
	asked := p.Now()
	release, err := p.take(ctx)
	if err != nil {
		return Image{}, nil, err
	}
	defer release()
	began := p.Now()
	used, err := p.try(ctx, spec, credentials, sandbox)
	if ctx.Err() != nil {
		return Image{}, nil, ctx.Err()
	}
	if err != nil {
		p.Events.Eventf(ref, v1.EventTypeWarning, event.Failed, "Failed to pull image %q: %v", name, err)
		p.Events.Eventf(ref, v1.EventTypeWarning, event.Failed, "Error: ErrImagePull")
		return Image{}, nil, p.failed(key, err)
	}
	p.forget(key)
	image, found, err := p.inspect(ctx, spec)
	if err != nil || !found {
		return Image{}, nil, p.failed(key, fmt.Errorf("image %q is not there after it was pulled: %w", name, err))
	}
	size := int64(0)
	if response, err := p.Runtime.ImageStatus(ctx, spec, false); err == nil {
		size = int64(response.GetImage().GetSize())
	}
	p.Events.Eventf(ref, v1.EventTypeNormal, event.Pulled, "Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		name, p.Now().Sub(began).Truncate(time.Millisecond), p.Now().Sub(asked).Truncate(time.Millisecond), size)
	return image, used, nil
}

// take waits until another pull may be under way.
func (p *Puller) take(ctx context.Context) (release func(), err error) {
	if p.slots == nil {
		return func() {}, nil
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errRate is what a pull fails with that comes too soon after others.
var errRate = errors.New("pull QPS exceeded")

// try pulls with each credential until one works, or without any.
func (p *Puller) try(ctx context.Context, spec *runtimeapi.ImageSpec, credentials []Credential, sandbox *runtimeapi.PodSandboxConfig) (*Credential, error) {
	one := func(auth *runtimeapi.AuthConfig) error {
		if p.rate != nil && !p.rate.AllowN(p.Now(), 1) {
			return errRate
		}
		_, err := p.Runtime.PullImage(ctx, spec, auth, sandbox)
		return err
	}
	if len(credentials) == 0 {
		return nil, one(nil)
	}
	var errs []error
	for i := range credentials {
		err := one(credentials[i].Auth)
		if err == nil {
			return &credentials[i], nil
		}
		if !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == err.Error() }) {
			errs = append(errs, err)
		}
	}
	return nil, utilerrors.NewAggregate(errs)
}

func (p *Puller) inspect(ctx context.Context, spec *runtimeapi.ImageSpec) (Image, bool, error) {
	response, err := p.Runtime.ImageStatus(ctx, spec, false)
	if err != nil {
		return Image{}, false, err
	}
	found := response.GetImage()
	if found.GetId() == "" {
		return Image{}, false, nil
	}
	image := Image{Ref: found.GetId(), Username: found.GetUsername()}
	if found.GetUid() != nil {
		uid := found.GetUid().GetValue()
		image.User = &uid
	} else if image.Username == "" {
		// Without any user the image runs as root.
		root := int64(0)
		image.User = &root
	}
	return image, true, nil
}

// held returns the failure to show while a pull is backed off.
func (p *Puller) held(key, name string) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[key]
	if b == nil || !p.Now().Before(b.until) {
		return nil
	}
	return &Failure{Reason: "ImagePullBackOff", Message: fmt.Sprintf("Back-off pulling image %q: %s", name, b.cause), RetryAt: b.until}
}

func (p *Puller) failed(key string, err error) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[key]
	switch {
	case b == nil || p.Now().Sub(b.until) > maxBackoff:
		b = &backoff{delay: firstBackoff}
		p.backoff[key] = b
	default:
		b.delay = min(2*b.delay, maxBackoff)
	}
	b.until = p.Now().Add(b.delay)
	b.cause = "ErrImagePull: " + err.Error()
	return &Failure{Reason: "ErrImagePull", Message: err.Error(), RetryAt: p.Now().Add(visibleError)}
}

func (p *Puller) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.backoff, key)
}

// Forget drops what is remembered about a pod.
func (p *Puller) Forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.backoff {
		if strings.HasPrefix(key, uid+"_") {
			delete(p.backoff, key)
		}
	}
}

// withTag adds :latest to a name without tag and digest. The rest of the name
// stays as the user wrote it.
func withTag(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image reference %q: %w", image, err)
	}
	if reference.IsNameOnly(named) {
		return image + ":latest", nil
	}
	return image, nil
}
