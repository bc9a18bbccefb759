"""`python -m igvg_cli`, the form that `accelerate launch -m` starts."""

from igvg_cli.app import main

if __name__ == "__main__":
    main()
