package config

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// AgentKind is the kind of skiff-agent's configuration file.
const AgentKind = "AgentConfiguration"

// Agent configures skiff-agent, which runs the pods of one machine.
type Agent struct {
	TypeMeta `yaml:",inline"`

	// NodeName names the Node object. Empty: the host name in lower case.
	NodeName string `yaml:"nodeName" help:"name of the Node object; the host name when empty"`
	// NodeIP is the node's address. Empty: the source address of the route to the API server.
	NodeIP string `yaml:"nodeIP" help:"address of this node; found from the route to the API server when empty"`
	// NodeLabels are added to the Node object at registration.
	NodeLabels map[string]string `yaml:"nodeLabels" help:"labels added to the Node object, key=value"`

	// Kubeconfig holds the agent's credentials and the address of an API server.
	Kubeconfig string `yaml:"kubeconfig" help:"credentials and address of an API server"`
	// BootstrapKubeconfig holds a bootstrap token with which a machine without a
	// certificate asks for its first.
	BootstrapKubeconfig string `yaml:"bootstrapKubeconfig" help:"bootstrap token to ask for the first certificate with"`
	// RotateCertificates has the API issue and renew this machine's certificates.
	// A control machine signs its agent's certificates itself.
	RotateCertificates bool `yaml:"rotateCertificates" help:"have the API issue and renew this machine's certificates"`
	// ControlAddresses are host:port of all API servers; empty: the kubeconfig's only.
	ControlAddresses []string `yaml:"controlAddresses" help:"host:port of every API server"`

	// ClientCAFile, TLSCertFile and TLSKeyFile serve the agent's own HTTPS endpoint.
	ClientCAFile string `yaml:"clientCAFile" help:"CA that signs the clients of the HTTPS endpoint"`
	TLSCertFile  string `yaml:"tlsCertFile" help:"certificate of the HTTPS endpoint"`
	TLSKeyFile   string `yaml:"tlsKeyFile" help:"key of the HTTPS endpoint"`
	// Port of the agent's HTTPS endpoint for logs, exec and port-forward.
	Port int `yaml:"port" help:"port of the HTTPS endpoint"`

	RootDir          string `yaml:"rootDir" help:"folder of the pods' volumes"`
	StateDir         string `yaml:"stateDir" help:"folder of what must survive a reboot"`
	RunDir           string `yaml:"runDir" help:"folder of sockets and namespaces"`
	PodLogsDir       string `yaml:"podLogsDir" help:"folder of the container logs"`
	ContainerLogsDir string `yaml:"containerLogsDir" help:"folder of the links to container logs"`
	// LocalVolumesDir holds the volumes that the storage class local-path makes here.
	// Empty: this node offers none.
	LocalVolumesDir string `yaml:"localVolumesDir" help:"folder of the volumes that storage class local-path makes here; none when empty"`
	StaticPodPath   string `yaml:"staticPodPath" help:"folder of static pod manifests"`

	ContainerdAddress   string `yaml:"containerdAddress" help:"containerd's socket"`
	ContainerdNamespace string `yaml:"containerdNamespace" help:"containerd namespace of the pods"`
	// RegistryConfigDir is where hosts.toml files of registries and mirrors are.
	RegistryConfigDir string `yaml:"registryConfigDir" help:"folder of hosts.toml files of registries and mirrors"`
	Snapshotter       string `yaml:"snapshotter" help:"containerd snapshotter"`

	// CgroupRoot is the cgroup below which kubepods is made.
	CgroupRoot string `yaml:"cgroupRoot" help:"cgroup below which kubepods is made"`
	// CgroupDriver is auto, cgroupfs or systemd.
	CgroupDriver string `yaml:"cgroupDriver" help:"auto, cgroupfs or systemd"`

	ClusterDNS    []string `yaml:"clusterDNS" help:"addresses of the cluster's name server"`
	ClusterDomain string   `yaml:"clusterDomain" help:"DNS domain of the cluster"`

	// Bridge is the name of the pod network's bridge on this machine.
	Bridge string `yaml:"bridge" help:"name of the pod network's bridge"`
	// PodCIDR of this node. Empty: taken from the Node object.
	PodCIDR string `yaml:"podCIDR" help:"range of this node's pods; from the Node object when empty"`
	// ClusterCIDR is the range of all pods: traffic to it is not masqueraded.
	ClusterCIDR string `yaml:"clusterCIDR" help:"range of all pods"`

	// AllowedUnsafeSysctls are kernel settings pods may make besides the safe ones; a trailing * is a pattern.
	AllowedUnsafeSysctls []string `yaml:"allowedUnsafeSysctls" help:"kernel settings pods may make besides the safe ones; a trailing * is a pattern"`
	// SeccompDefault gives containers without a seccomp profile the runtime's default one.
	SeccompDefault bool `yaml:"seccompDefault" help:"give containers without a seccomp profile the default one"`

	// Resources say how much pods may take of the machine.
	Resources Resources `yaml:",inline"`

	MaxPods int `yaml:"maxPods" help:"how many pods may run here"`
	// RegisterWithTaints are on the Node object from its first moment, key=value:effect.
	RegisterWithTaints []string `yaml:"registerWithTaints" help:"taints of the Node object at registration, key=value:effect"`
	// NodeStatusMaxImages bounds the list of images in the Node's status; -1 for no bound.
	NodeStatusMaxImages int `yaml:"nodeStatusMaxImages" help:"how many images the Node's status lists; -1 for all"`

	// SerializeImagePulls pulls one image at a time; MaxParallelImagePulls bounds
	// them otherwise, 0 for no bound.
	SerializeImagePulls   bool `yaml:"serializeImagePulls" help:"pull one image at a time"`
	MaxParallelImagePulls int  `yaml:"maxParallelImagePulls" help:"how many images are pulled at a time; 0 for any number"`
	// RegistryPullQPS is how many pulls a second may begin, after a burst; 0 for any number.
	RegistryPullQPS int `yaml:"registryPullQPS" help:"how many pulls begin in a second; 0 for any number"`
	RegistryBurst   int `yaml:"registryBurst" help:"how many pulls may begin at once"`
	// ImageCredentialProviderConfig is a file of kind CredentialProviderConfig
	// (kubelet.config.k8s.io/v1), whose programs are in ImageCredentialProviderBinDir.
	ImageCredentialProviderConfig string `yaml:"imageCredentialProviderConfig" help:"file that configures the credential providers for registries"`
	ImageCredentialProviderBinDir string `yaml:"imageCredentialProviderBinDir" help:"folder of the credential providers' programs"`
	// ImagePullCredentialsVerificationPolicy says for which images that are present
	// a pod has to prove that its credentials give it access.
	ImagePullCredentialsVerificationPolicy string `yaml:"imagePullCredentialsVerificationPolicy" help:"for which present images a pod must prove its access: NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify"`
	// PreloadedImagesVerificationAllowlist are repositories, or beginnings with /*, that are never verified.
	PreloadedImagesVerificationAllowlist []string `yaml:"preloadedImagesVerificationAllowlist" help:"repositories that NeverVerifyAllowlistedImages lets every pod use"`
	// ImageGCHighThresholdPercent of the disk's use begins the removal of images
	// nobody uses, down to ImageGCLowThresholdPercent; 100 never does.
	ImageGCHighThresholdPercent int    `yaml:"imageGCHighThresholdPercent" help:"how full the disk may be before unused images are removed, in percent"`
	ImageGCLowThresholdPercent  int    `yaml:"imageGCLowThresholdPercent" help:"how full the disk is when their removal ends, in percent"`
	ImageMinimumGCAge           string `yaml:"imageMinimumGCAge" help:"how long an image must be here before it is removed"`
	ImageMaximumGCAge           string `yaml:"imageMaximumGCAge" help:"how long an image may be unused; 0s for ever"`

	// ContainerLogMaxSize is the size at which a container's log is rotated, ContainerLogMaxFiles how many files it has.
	ContainerLogMaxSize  string `yaml:"containerLogMaxSize" help:"size at which a container's log file is rotated"`
	ContainerLogMaxFiles int    `yaml:"containerLogMaxFiles" help:"how many log files a container has at most"`
	// EnableSystemLogHandler serves the node's /var/log at /logs/.
	EnableSystemLogHandler bool `yaml:"enableSystemLogHandler" help:"serve the node's /var/log at /logs/"`

	// RuntimeHandlers are what RuntimeClasses name, besides the default one.
	RuntimeHandlers map[string]RuntimeHandler `yaml:"runtimeHandlers"`

	// ShutdownGracePeriod is for how long the machine's shutdown is delayed so that
	// pods end in order; ShutdownGracePeriodCriticalPods of it is for critical ones.
	ShutdownGracePeriod             string `yaml:"shutdownGracePeriod" help:"how long a shutdown of the machine waits for pods; 0s for not at all"`
	ShutdownGracePeriodCriticalPods string `yaml:"shutdownGracePeriodCriticalPods" help:"how much of it is for critical pods"`
	// ShutdownGracePeriodByPodPriority replaces both.
	ShutdownGracePeriodByPodPriority []ShutdownPriority `yaml:"shutdownGracePeriodByPodPriority"`

	LogLevel string `yaml:"logLevel" help:"debug, info, warn or error"`
}

// DefaultAgent returns the configuration of a machine nobody configured.
func DefaultAgent() *Agent {
	return &Agent{
		TypeMeta:            TypeMeta{APIVersion: APIVersion, Kind: AgentKind},
		Kubeconfig:          "/etc/skiff/agent.conf",
		ClientCAFile:        "/etc/skiff/pki/ca.crt",
		TLSCertFile:         "/etc/skiff/pki/agent-server.crt",
		TLSKeyFile:          "/etc/skiff/pki/agent-server.key",
		Port:                10250,
		RootDir:             "/var/lib/kubelet",
		StateDir:            "/var/lib/skiff/agent",
		RunDir:              "/run/skiff",
		PodLogsDir:          "/var/log/pods",
		ContainerLogsDir:    "/var/log/containers",
		LocalVolumesDir:     "/var/lib/skiff/volumes",
		StaticPodPath:       "/etc/skiff/pods",
		ContainerdAddress:   "/run/containerd/containerd.sock",
		ContainerdNamespace: "k8s.io",
		RegistryConfigDir:   "/etc/containerd/certs.d",
		Snapshotter:         "overlayfs",
		CgroupRoot:          "/",
		CgroupDriver:        "auto",
		ClusterDNS:          []string{"10.96.0.10"},
		ClusterDomain:       "cluster.local",
		Bridge:              "skiff0",
		ClusterCIDR:         "10.244.0.0/16",
		Resources:           defaultResources(),
		MaxPods:             110,

		NodeStatusMaxImages:                    50,
		MaxParallelImagePulls:                  4,
		RegistryPullQPS:                        5,
		RegistryBurst:                          10,
		ImagePullCredentialsVerificationPolicy: "NeverVerifyPreloadedImages",
		ImageGCHighThresholdPercent:            85,
		ImageGCLowThresholdPercent:             80,
		ImageMinimumGCAge:                      "2m",
		ImageMaximumGCAge:                      "0s",
		ContainerLogMaxSize:                    "10Mi",
		ContainerLogMaxFiles:                   5,
		EnableSystemLogHandler:                 true,
		ShutdownGracePeriod:                    "0s",
		ShutdownGracePeriodCriticalPods:        "0s",

		LogLevel: "info",
	}
}

// Validate names every field that cannot be used, and what would be right.
func (c *Agent) Validate() field.ErrorList {
	var errs field.ErrorList
	if c.NodeName != "" {
		for _, msg := range validation.IsDNS1123Subdomain(c.NodeName) {
			errs = append(errs, field.Invalid(field.NewPath("nodeName"), c.NodeName, msg))
		}
	}
	if c.NodeIP != "" {
		errs = append(errs, requireAddress("nodeIP", c.NodeIP)...)
	}
	for _, p := range []struct{ name, value string }{
		{"kubeconfig", c.Kubeconfig}, {"clientCAFile", c.ClientCAFile}, {"tlsCertFile", c.TLSCertFile}, {"tlsKeyFile", c.TLSKeyFile},
		{"rootDir", c.RootDir}, {"stateDir", c.StateDir}, {"runDir", c.RunDir}, {"podLogsDir", c.PodLogsDir},
		{"containerLogsDir", c.ContainerLogsDir}, {"containerdAddress", c.ContainerdAddress},
	} {
		errs = append(errs, requirePath(p.name, p.value)...)
	}
	if c.LocalVolumesDir != "" {
		errs = append(errs, requirePath("localVolumesDir", c.LocalVolumesDir)...)
	}
	if c.BootstrapKubeconfig != "" {
		errs = append(errs, requirePath("bootstrapKubeconfig", c.BootstrapKubeconfig)...)
	}
	errs = append(errs, requirePort("port", c.Port)...)
	for i, a := range c.ControlAddresses {
		errs = append(errs, requireHostPort(fmt.Sprintf("controlAddresses[%d]", i), a)...)
	}
	for i, a := range c.ClusterDNS {
		errs = append(errs, requireAddress(fmt.Sprintf("clusterDNS[%d]", i), a)...)
	}
	errs = append(errs, requireDomain("clusterDomain", c.ClusterDomain)...)
	errs = append(errs, requireOneOf("cgroupDriver", c.CgroupDriver, "auto", "cgroupfs", "systemd")...)
	if len(c.Bridge) == 0 || len(c.Bridge) > 15 {
		errs = append(errs, field.Invalid(field.NewPath("bridge"), c.Bridge, "must have 1 to 15 characters, the kernel's limit for a link name"))
	}
	if c.PodCIDR != "" {
		_, podErrs := requirePrefix("podCIDR", c.PodCIDR)
		errs = append(errs, podErrs...)
	}
	_, clusterErrs := requirePrefix("clusterCIDR", c.ClusterCIDR)
	errs = append(errs, clusterErrs...)
	for i, s := range c.AllowedUnsafeSysctls {
		errs = append(errs, requireSysctl(fmt.Sprintf("allowedUnsafeSysctls[%d]", i), s)...)
	}
	if c.MaxPods < 1 {
		errs = append(errs, field.Invalid(field.NewPath("maxPods"), c.MaxPods, "must be at least 1"))
	}
	errs = append(errs, c.Resources.validate()...)
	errs = append(errs, c.validateNode()...)
	errs = append(errs, c.validateImages()...)
	return append(errs, requireLogLevel(c.LogLevel)...)
}
