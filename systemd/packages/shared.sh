  # What they share goes with the last of them.
  others=
  for package in skiff skiff-control skiff-agent skiff-proxy; do
    if [ "$package" != "$DPKG_MAINTSCRIPT_PACKAGE" ]; then
      case "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" in
      '' | not-installed) ;;
      *) others=$package ;;
      esac
    fi
  done
  if [ -z "$others" ]; then
    rm -rf --one-file-system /etc/skiff /var/lib/skiff /var/log/skiff /run/skiff
  fi
