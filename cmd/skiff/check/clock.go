package check

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// noticeable is a difference of clocks that log lines and leases show. The
	// Date header by which it is seen counts whole seconds.
	noticeable = 3 * time.Second
	// tolerable is how far clocks may be apart before certificates of one
	// machine are not valid yet on another.
	tolerable = 5 * time.Minute
)

// clockState is what the kernel knows of its clock.
type clockState struct {
	synchronized bool
	// offset is how far it is from right, as the program thinks that keeps it so.
	offset time.Duration
	// maxError is the most it may be off.
	maxError time.Duration
}

// kernelClock asks without changing anything: no mode is set.
func kernelClock() (clockState, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return clockState{}, err
	}
	unit := time.Microsecond
	if t.Status&unix.STA_NANO != 0 {
		unit = time.Nanosecond
	}
	return clockState{
		synchronized: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		offset:       time.Duration(t.Offset) * unit, maxError: time.Duration(t.Maxerror) * time.Microsecond,
	}, nil
}

func checkTime(ctx context.Context, e *examination) {
	if state, err := e.clock(); err != nil {
		e.warn("synchronized", "cannot be found out: "+err.Error())
	} else if state.synchronized {
		e.ok("synchronized", "yes, at most %s off", state.maxError.Round(time.Millisecond))
	} else {
		e.warn("synchronized", "no: nobody keeps this machine's clock right; when it is minutes off, certificates are refused and machines cannot join", e.keepTime()...)
	}
	e.hardwareClock()
	var asking sync.WaitGroup
	servers := e.servers
	differences := make([]func(), len(servers))
	for i, server := range servers {
		asking.Go(func() { differences[i] = e.compare(ctx, server) })
	}
	asking.Wait()
	for _, say := range differences {
		say()
	}
}

// keepTime is how a machine's clock is kept right with what it has.
func (e *examination) keepTime() []string {
	for program, unit := range map[string]string{"chronyd": "chrony", "ntpd": "ntpsec"} {
		if _, err := e.lookPath(program); err == nil {
			return []string{"systemctl enable --now " + unit + "   # if it runs: chronyc tracking, or see whether UDP 123 gets out"}
		}
	}
	if e.exists("usr/lib/systemd/systemd-timesyncd") || e.exists("lib/systemd/systemd-timesyncd") {
		return []string{"timedatectl set-ntp true && timedatectl timesync-status"}
	}
	return []string{"apt-get install chrony"}
}

// hardwareClock is what the machine's clock starts from at the next boot.
func (e *examination) hardwareClock() {
	seconds, err := strconv.ParseInt(e.text("sys/class/rtc/rtc0/since_epoch"), 10, 64)
	if err != nil {
		return // none, as on many virtual and small machines
	}
	if e.text("etc/adjtime") != "" && strings.HasSuffix(e.text("etc/adjtime"), "LOCAL") {
		return // in local time, which says nothing here
	}
	off := time.Unix(seconds, 0).Sub(e.now()).Round(time.Second)
	if off.Abs() > tolerable {
		e.warn("hardware clock", fmt.Sprintf("%s off: until the clock is set after a boot, certificates are refused", off), "hwclock --systohc")
		return
	}
	e.ok("hardware clock", "agrees")
}

// compare asks an API server what time it is. It returns a function that says
// so, to be called by the examination's owner.
func (e *examination) compare(ctx context.Context, server string) func() {
	name := "clock of " + server
	conn, err := e.tlsTo(ctx, server, "", nil)
	if err != nil {
		return func() {} // the peers' area says what is wrong
	}
	client := &http.Client{Transport: &http.Transport{DialTLSContext: fixed(conn), DisableKeepAlives: true}, Timeout: dialLimit}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server+"/livez", nil)
	if err != nil {
		return func() {}
	}
	before := e.now()
	response, err := client.Do(request)
	if err != nil {
		return func() { e.warn(name, "it does not say: "+err.Error()) }
	}
	response.Body.Close()
	took := e.now().Sub(before)
	there, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return func() { e.warn(name, "its answer has no date") }
	}
	// The header is cut to the second: on average half of one is missing.
	off := before.Add(took / 2).Sub(there.Add(time.Second / 2)).Round(time.Second)
	return func() {
		found := fmt.Sprintf("this machine's is %s ahead", off)
		if off < 0 {
			found = fmt.Sprintf("this machine's is %s behind", -off)
		}
		switch remedy := append(e.keepTime(), "# the same there, if it is that one which is wrong: date -u"); {
		case off.Abs() > tolerable:
			e.fail(name, found+": more than "+tolerable.String()+" apart certificates are refused and the machine cannot join", remedy...)
		case off.Abs() > noticeable:
			e.warn(name, found+": logs, leases and CronJobs show it", remedy...)
		default:
			e.ok(name, "agrees within %s", noticeable)
		}
	}
}
