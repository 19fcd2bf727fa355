package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of names and credentials on Windows.
const (
	maxCredentialSpecKiB = 64
	maxWindowsDomain     = 256
	maxWindowsUser       = 104
)

var (
	controlCharacters = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOSName       = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	windowsDomain     = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	badUserCharacters = regexp.MustCompile(`["/\\:;|=,\+\*\?<>@\[\]]`)
	onlyDotsAndBlanks = regexp.MustCompile(`^[\. ]+$`)
)

func (v *validator) windowsOptions(o *corev1.WindowsSecurityContextOptions, path *field.Path) {
	if o == nil {
		return
	}
	if name := o.GMSACredentialSpecName; name != nil {
		v.invalidEach(path.Child("gmsaCredentialSpecName"), name, validation.IsDNS1123Subdomain(*name))
	}
	if spec := o.GMSACredentialSpec; spec != nil {
		if *spec == "" {
			v.invalid(path.Child("gmsaCredentialSpec"), spec, "gmsaCredentialSpec cannot be an empty string")
		} else if len(*spec) > maxCredentialSpecKiB<<10 {
			v.invalid(path.Child("gmsaCredentialSpec"), spec, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxCredentialSpecKiB))
		}
	}
	if o.RunAsUserName != nil {
		for _, problem := range windowsUserProblems(*o.RunAsUserName) {
			v.invalid(path.Child("runAsUserName"), o.RunAsUserName, "runAsUserName"+problem)
		}
	}
}

// windowsUserProblems checks a name of the form user or DOMAIN\user.
func windowsUserProblems(name string) (problems []string) {
	switch {
	case name == "":
		return []string{" cannot be an empty string"}
	case controlCharacters.MatchString(name):
		return []string{" cannot contain control characters"}
	case strings.Count(name, `\`) > 1:
		return []string{" cannot contain more than one backslash"}
	}
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		domain, user = "", name
	}
	if len(domain) >= maxWindowsDomain {
		problems = append(problems, fmt.Sprintf("'s Domain length must be under %d characters", maxWindowsDomain))
	}
	if hasDomain && !netBIOSName.MatchString(domain) && !windowsDomain.MatchString(domain) {
		problems = append(problems, "'s Domain doesn't match the NetBios nor the DNS format")
	}
	if user == "" {
		problems = append(problems, "'s User cannot be empty")
	} else if len(user) > maxWindowsUser {
		problems = append(problems, fmt.Sprintf("'s User length must not be longer than %d characters", maxWindowsUser))
	}
	if onlyDotsAndBlanks.MatchString(user) {
		problems = append(problems, "'s User cannot contain only periods or spaces")
	}
	if badUserCharacters.MatchString(user) {
		problems = append(problems, `'s User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return problems
}

// windowsHostProcess: containers that are processes of a Windows node come all together, and with
// the node's network.
func (v *validator) windowsHostProcess(path *field.Path) {
	var inherited *bool
	if sc := v.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		inherited = sc.WindowsOptions.HostProcess
	}
	all, host := 0, 0
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		var own *bool
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			own = c.SecurityContext.WindowsOptions.HostProcess
		}
		if inherited != nil && own != nil && *inherited != *own {
			v.invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *inherited))
		}
		all++
		if isTrue(own) || (own == nil && isTrue(inherited)) {
			host++
		}
	})
	if host == 0 {
		return
	}
	if host != all {
		v.invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !v.spec.HostNetwork {
		v.invalid(path.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}
