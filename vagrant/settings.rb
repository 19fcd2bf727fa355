require "ipaddr"

# What the environment says of the machines, checked before any is made.
module Skiff
  # The range that VirtualBox lets host-only networks have without configuration.
  RANGE = IPAddr.new("192.168.56.0/21")
  NETMASK = "255.255.248.0".freeze
  BOXES = {
    "debian" => "debian/bookworm64",
    "ubuntu" => "bento/ubuntu-24.04"
  }.freeze

  # A variable of the environment has a value that cannot be used.
  class BadSetting < StandardError; end

  Machine = Struct.new(:name, :address, :control)

  # Box, sizes and machines of the cluster.
  class Settings
    attr_reader :box, :memory, :cpus, :machines

    def initialize(env)
      @env = env
      @box = BOXES.fetch(text("SKIFF_BOX", "debian")) { |name| checked_box(name) }
      @memory = number("SKIFF_MEMORY", 2048, 1024..1_048_576, "MiB of memory for each machine")
      @cpus = number("SKIFF_CPUS", 2, 1..64, "processors for each machine")
      control = number("SKIFF_CONTROL", 3, 1..5, "control machines: 1, 3 or 5")
      raise BadSetting, "SKIFF_CONTROL=#{control}: must be 1, 3 or 5 control machines" if control.even?

      workers = number("SKIFF_WORKERS", 0, 0..100, "workers")
      @packages = File.expand_path(text("SKIFF_PACKAGES", "../dist"), __dir__)
      @machines = made(1..control, "m", 10, true) + made(1..workers, "w", 100, false)
    end

    # The groups of the inventory. The playbook finds the rest in the variables.
    def groups
      {
        "control" => machines.select(&:control).map(&:name),
        "workers" => machines.reject(&:control).map(&:name),
        "all:vars" => {
          "skiff_packages_dir" => @packages,
          "skiff_kubeconfig_dest" => File.expand_path("admin.conf", __dir__)
        }
      }
    end

    # The first card of every machine is NAT and has the same address on each: the
    # cluster must use the second.
    def host_vars
      machines.to_h { |machine| [machine.name, { "skiff_node_ip" => machine.address }] }
    end

    private

    def text(name, default)
      value = @env[name].to_s
      value.empty? ? default : value
    end

    def number(name, default, range, what)
      value = text(name, default.to_s)
      return value.to_i if value.match?(/\A[0-9]+\z/) && range.cover?(value.to_i)

      raise BadSetting, "#{name}=#{value}: must be a number from #{range.min} to #{range.max} (#{what})"
    end

    def checked_box(name)
      return name if name.match?(%r{\A[\w.-]+/[\w.-]+\z})

      raise BadSetting, "SKIFF_BOX=#{name}: must be #{BOXES.keys.join(' or ')}, or the name of a box of Debian or Ubuntu, such as debian/trixie64"
    end

    def made(numbers, letter, offset, control)
      numbers.map { |n| Machine.new("#{letter}#{n}", (RANGE | (offset + n)).to_s, control) }
    end
  end
end
