package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// controlStop is how long skiff-control may take to stop.
const controlStop = 20 * time.Second

// WithControlStopped runs work while skiff-control of this machine does not
// run. If it ran before it is started again afterwards, whatever became of the
// work. Pods do not notice.
func (o *Options) WithControlStopped(ctx context.Context, work func() error) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root: run it with sudo")
	}
	if o.systemd() {
		return o.withUnitStopped(work)
	}
	supervisor := running(o.PIDFile("up"), "skiff")
	if supervisor != 0 {
		// It would start the daemon again at once: it is held, not ended, because
		// its end would end the pods too.
		fd, err := unix.PidfdOpen(supervisor, 0)
		if err != nil {
			return fmt.Errorf("find the supervising process %d: %w", supervisor, err)
		}
		defer unix.Close(fd)
		if err := unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0); err != nil {
			return fmt.Errorf("hold the supervising process %d: %w", supervisor, err)
		}
		defer func() { err = errors.Join(err, unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)) }()
	}
	if err := terminate(ctx, o.PIDFile("control"), "skiff-control", controlStop); err != nil {
		return err
	}
	return work()
}

func (o *Options) withUnitStopped(work func() error) (err error) {
	if systemctl("is-active", "--quiet", unit("control")) == nil {
		if err := systemctl("stop", unit("control")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, systemctl("start", "--no-block", unit("control"))) }()
	}
	// Whatever became of the work: what it wrote is the daemon's.
	return errors.Join(work(), o.handOver())
}
