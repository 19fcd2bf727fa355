# ruby vagrant/settings_test.rb
require "minitest/autorun"
require_relative "settings"

class SettingsTest < Minitest::Test
  def test_three_control_machines_on_debian_unless_told_otherwise
    settings = Skiff::Settings.new({})
    assert_equal "debian/bookworm64", settings.box
    assert_equal %w[m1 m2 m3], settings.machines.map(&:name)
    assert_equal %w[192.168.56.11 192.168.56.12 192.168.56.13], settings.machines.map(&:address)
    assert_equal %w[m1 m2 m3], settings.groups["control"]
    assert_empty settings.groups["workers"]
  end

  def test_what_the_environment_says
    settings = Skiff::Settings.new("SKIFF_BOX" => "ubuntu", "SKIFF_MEMORY" => "4096", "SKIFF_CPUS" => "4", "SKIFF_CONTROL" => "1", "SKIFF_WORKERS" => "2")
    assert_equal ["bento/ubuntu-24.04", 4096, 4], [settings.box, settings.memory, settings.cpus]
    assert_equal [["m1"], %w[w1 w2]], settings.groups.values_at("control", "workers")
    assert_equal({ "skiff_node_ip" => "192.168.56.101" }, settings.host_vars["w1"])
  end

  def test_every_address_is_one_of_its_own_in_the_range
    settings = Skiff::Settings.new("SKIFF_CONTROL" => "5", "SKIFF_WORKERS" => "100")
    addresses = settings.machines.map(&:address)
    assert_equal addresses.uniq, addresses
    assert(addresses.all? { |each| Skiff::RANGE.include?(IPAddr.new(each)) })
  end

  def test_another_box_by_its_name
    assert_equal "debian/trixie64", Skiff::Settings.new("SKIFF_BOX" => "debian/trixie64").box
  end

  {
    "SKIFF_CONTROL" => %w[2 4 7 three],
    "SKIFF_WORKERS" => %w[-1 101],
    "SKIFF_MEMORY" => %w[512 2G],
    "SKIFF_CPUS" => %w[0 two],
    "SKIFF_BOX" => %w[fedora a/b/c]
  }.each do |name, values|
    values.each do |value|
      define_method("test_#{name}_cannot_be_#{value}") do
        error = assert_raises(Skiff::BadSetting) { Skiff::Settings.new(name => value) }
        assert_match(/\A#{name}=#{Regexp.escape(value)}: must be/, error.message)
      end
    end
  end
end
