package podspec

import (
	"path"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// strictAddresses refuses the forms of IP addresses that different parsers read differently, such
// as octets with leading zeros.
const strictAddresses = true

func (f *findings) dnsLabel(value string, at *field.Path) {
	f.invalidEach(at, value, validation.IsDNS1123Label(value))
}

func (f *findings) dnsSubdomain(value string, at *field.Path) {
	f.invalidEach(at, value, validation.IsDNS1123Subdomain(value))
}

func (f *findings) qualifiedName(value string, at *field.Path) {
	f.invalidEach(at, value, validation.IsQualifiedName(value))
}

func (f *findings) nonNegative(value int64, at *field.Path) {
	f.add(apivalidation.ValidateNonnegativeField(value, at)...)
}

func (f *findings) positive(value int64, at *field.Path) {
	if value <= 0 {
		f.invalid(at, value, "must be greater than zero")
	}
}

func (f *findings) portNumber(port int32, at *field.Path) {
	f.invalidEach(at, port, validation.IsValidPortNum(int(port)))
}

// port checks a port given by number or by the name of a container port.
func (f *findings) port(port intstr.IntOrString, at *field.Path) {
	if port.Type == intstr.String {
		f.invalidEach(at, port.StrVal, validation.IsValidPortName(port.StrVal))
		return
	}
	f.invalidEach(at, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
}

func (f *findings) fileMode(mode *int32, at *field.Path) {
	if mode != nil && (*mode > 0o777 || *mode < 0) {
		f.invalid(at, *mode, "must be a number between 0 and 0777 (octal), both inclusive")
	}
}

// noBacksteps keeps a path from climbing out of where it starts.
func (f *findings) noBacksteps(target string, at *field.Path) {
	for _, part := range strings.Split(target, "/") {
		if part == ".." {
			f.invalid(at, target, "must not contain '..'")
			return
		}
	}
}

// relativePath checks a path that must stay below where it starts.
func (f *findings) relativePath(target string, at *field.Path) {
	if path.IsAbs(target) {
		f.invalid(at, target, "must be a relative path")
	}
	f.noBacksteps(target, at)
}

// volumeFilePath checks the path of a file in a volume whose content is written atomically: names
// that start with two dots are the writer's own.
func (f *findings) volumeFilePath(target string, at *field.Path) {
	f.relativePath(target, at)
	if strings.HasPrefix(target, "..") && !strings.HasPrefix(target, "../") {
		f.invalid(at, target, "must not start with '..'")
	}
}
