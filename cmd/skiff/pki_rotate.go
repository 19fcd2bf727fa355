package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/internal/pki"
)

// rotationStatus is how far the replacement of an authority has come here.
type rotationStatus struct {
	pki.Rotation
	// Fingerprint is that of the certificate that signs now.
	Fingerprint string `json:"fingerprint"`
	// Explanation says what the stage means and what comes next.
	Explanation string `json:"explanation"`
}

func newPKIRotateCommand(options *pkiOptions) *cobra.Command {
	var begin, advance, abandon bool
	command := &cobra.Command{
		Use:   "rotate [authority ...]",
		Short: "Replace certificate authorities in safe steps, or show how far that is",
		Long: `Replace the certificate authorities of this machine (ca, front-proxy-ca,
store-ca; all when none is named). Without a flag, show how far that is.

An authority is replaced in three steps, so that everybody always trusts what
anybody shows:
  1. --begin     A successor is made, and everybody begins to trust it.
  2. --advance   It signs from now on, and every certificate is signed anew.
  3. --advance   The one before it is no longer trusted.
After --begin skiff-control takes the other steps by itself: the second after 30
days, once all control machines trust the successor, and the third a year later.
--advance takes the next step at once. Before that, see with "skiff pki check" on
every control machine that the successor is listed, and give the agents five
minutes to learn of it: a machine that was off has to join again.

--abandon gives the successor up after the first step.

Each control machine has authorities of its own that all trust: run this on each
to replace all. Keys never travel. After a machine was stolen or broken into,
replace the authorities of all control machines and take all steps at once.`,
		ValidArgs: pki.AuthorityNames(),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			step, err := chooseStep(begin, advance, abandon)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				names = pki.Authorities(options.dir())
			}
			if len(names) == 0 {
				return fmt.Errorf("%s has no key of an authority: run this on a control machine", options.dir())
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, step(options.dir(), name))
			}
			if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) && (begin || advance) {
				// What is signed by the one before is signed anew at once.
				_, err := pki.RenewDue(options.dir())
				errs = append(errs, err)
			}
			errs = append(errs, showRotations(cmd.OutOrStdout(), options, names))
			return errors.Join(errs...)
		},
	}
	command.Flags().BoolVar(&begin, "begin", false, "take the first step")
	command.Flags().BoolVar(&advance, "advance", false, "take the second or third step now, without waiting")
	command.Flags().BoolVar(&abandon, "abandon", false, "undo the first step")
	return command
}

// chooseStep returns what the flags ask for.
func chooseStep(begin, advance, abandon bool) (func(dir, name string) error, error) {
	switch {
	case begin && advance, begin && abandon, advance && abandon:
		return nil, errors.New("--begin, --advance and --abandon exclude each other")
	case begin:
		return pki.Introduce, nil
	case abandon:
		return pki.Abandon, nil
	case advance:
		return func(dir, name string) error {
			r, err := pki.RotationOf(dir, name)
			switch {
			case err != nil:
				return err
			case r.Stage == pki.Trusting:
				return pki.Adopt(dir, name)
			case r.Stage == pki.Replacing:
				return pki.Retire(dir, name)
			}
			return fmt.Errorf("authority %s: no replacement has begun: use --begin", name)
		}, nil
	}
	return func(string, string) error { return nil }, nil
}

func showRotations(out io.Writer, options *pkiOptions, names []string) error {
	var all []rotationStatus
	for _, name := range names {
		r, err := pki.RotationOf(options.dir(), name)
		if err != nil {
			return err
		}
		all = append(all, rotationStatus{r, pki.Fingerprint(r.Signing), explain(r)})
	}
	return options.print(out, all, func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(w, "AUTHORITY\tSTAGE\tSINCE\tENDS\tMEANING")
		for _, each := range all {
			since := "<none>"
			if !each.Since.IsZero() {
				since = each.Since.UTC().Format(time.DateOnly)
			}
			fmt.Fprintln(w, strings.Join([]string{
				each.Authority, string(each.Stage), since, each.Signing.NotAfter.UTC().Format(time.DateOnly), each.Explanation,
			}, "\t"))
		}
		return w.Flush()
	})
}

func explain(r pki.Rotation) string {
	switch r.Stage {
	case pki.Trusting:
		return "the successor is trusted; it signs once every control machine trusts it, at the earliest on " + r.Since.Add(pki.Settling).UTC().Format(time.DateOnly)
	case pki.Replacing:
		return "the successor signs; the one before is trusted until " + r.Since.Add(pki.Fading).UTC().Format(time.DateOnly)
	}
	return "nothing is being replaced"
}
